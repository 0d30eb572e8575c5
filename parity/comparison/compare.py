"""`parity.compare`: is this Flax module the same function as that PyTorch module, and if not, where not?

Imports neither framework: of models that are given by name each may live in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from parity.comparison import environments
from parity.comparison.request import Request
from parity.errors import CannotCompare
from parity.kinds.layouts import input_to_flax
from parity.mapping.mapping import Mapping
from parity.reports.report import Report


def compare(
    flax_module: Any,
    torch_module: Any,
    inputs: ArrayLike | tuple[ArrayLike, ...],
    *,
    variables: Any = None,
    dtype: str = "float64",
    gradients: bool = True,
    mapping: dict[str, str] | Mapping | None = None,
    flax_inputs: tuple[ArrayLike, ...] | None = None,
    flax_kwargs: dict[str, Any] | None = None,
    torch_kwargs: dict[str, Any] | None = None,
    name: str = "model",
    seed: int = 0,
    workspace: str | Path | None = None,
    jax_python: str | None = None,
    torch_python: str | None = None,
) -> Report:
    """Compare a JAX model with the PyTorch module it was ported from, layer by layer.

    Every layer gets the reference's (PyTorch's) input, and backward the reference's cotangent, so each row of the
    report judges one layer alone; the code between layers is judged by what it hands to the next one. Then both
    models run freely from end to end.

    Args:
        flax_module: the candidate, a module of flax.linen or flax.nnx; or a function of (parameters, *inputs), which
            is compared from end to end only.
        torch_module: the reference, with its weights; neither changed nor moved: a copy runs in evaluation mode.
            Both may be names, `package.module:attribute`, and then run in processes of their own.
        inputs: array or arrays in PyTorch's layout; arrays of rank 4 (NCHW) are turned to NHWC for Flax.
        variables: Flax's own, to check the conversion of the weights as well, for nnx `nnx.state(module)`; None to
            convert PyTorch's here. Of a function the tree of its parameters, which holds PyTorch's values.
        dtype: `float64` decides correctness; `float32` and `bfloat16` compare the precisions.
        gradients: compare backward passes too.
        mapping: Flax path to PyTorch path of leaves that names, kinds and shapes don't pair. Or a whole
            `parity.Mapping`: its pairs are compared, and what it makes of PyTorch's weights is held to them.
        flax_inputs: what Flax gets, if not the inputs with channels moved last.
        flax_kwargs: more arguments of Flax's call, such as `{"train": False}`.
        torch_kwargs: likewise PyTorch's.
        name: of this pair, for the report.
        seed: of the cotangent.
        workspace: directory for captures, kept; a temporary one if None.
        jax_python: interpreter of a virtual environment that holds JAX, for modules given by name.
        torch_python: likewise of one that holds PyTorch.

    Returns:
        The report; `print(report)` shows it, `report.equal` and `report.exit_code` decide, and `report.mapping`
        converts weights as the comparison did.

    Raises:
        CannotCompare: layers can't be paired, something can't be compared (by name), or float64 is off in JAX.
    """
    arrays = tuple(np.asarray(x) for x in (inputs if isinstance(inputs, (tuple, list)) else (inputs,)))
    ours = tuple(map(np.asarray, flax_inputs)) if flax_inputs is not None else tuple(map(input_to_flax, arrays))
    request = Request(
        flax_module,
        torch_module,
        arrays,
        ours,
        flax_kwargs or {},
        torch_kwargs or {},
        variables,
        dtype,
        gradients,
        mapping,
        name,
        seed,
        workspace,
    )
    return _run(request, jax_python, torch_python)


def _run(request: Request, jax_python: str | None, torch_python: str | None) -> Report:
    """Where both models can run: here, or in processes of their own."""
    if isinstance(request.flax_module, str) or isinstance(request.torch_module, str):
        return _by_name(request, jax_python, torch_python)
    if jax_python or torch_python:
        raise CannotCompare(
            "another interpreter can't be handed an object: give both modules as 'package.module:attribute'"
        )
    from parity.comparison import one_process  # imports both frameworks

    return one_process.run(request)


def _by_name(request: Request, jax_python: str | None, torch_python: str | None) -> Report:
    """Models that are given by name run in processes of their own.

    Raises:
        CannotCompare: one of them is an object, or there are variables.
    """
    if not (isinstance(request.flax_module, str) and isinstance(request.torch_module, str)):
        raise CannotCompare("give both modules as 'package.module:attribute', or both as objects")
    if request.variables is not None:
        raise CannotCompare("with modules given by name, let the Flax name stand for (module, variables)")
    return environments.compare(request, jax_python, torch_python)
