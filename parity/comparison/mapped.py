"""A comparison's mapping of weights: what it has found, and variables by one that is given. Imports no PyTorch."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.candidate import jax_libraries
from parity.candidate.jax_arrays import DTYPES, placed
from parity.candidate.jax_candidate import Candidate
from parity.kinds import jax_leaves
from parity.kinds.leaf import Leaf
from parity.mapping import trees
from parity.mapping.found import Found, TorchState
from parity.mapping.mapping import Mapping
from parity.mapping.recurrent import Cell


def found(
    candidate: Candidate,
    module: Any,
    leaves: tuple[list[Leaf], list[Leaf]],
    state: TorchState,
    abstract: dict[str, Any],
    cells: dict[str, Cell],
) -> Found:
    """What a comparison that is over knows of both models' weights.

    Args:
        candidate: its JAX side.
        module: the JAX model.
        leaves: the JAX model's structure, and the reference's.
        state: the reference's state dict.
        abstract: the JAX model's variables, or their shapes.
        cells: of its recurrent layers, by path.
    """
    return Found(
        jax_libraries.library_of(module),
        type(module).__name__,
        candidate.pairs,
        {leaf.path: leaf for leaf in leaves[1]},
        state,
        candidate.kinds,
        {path: candidate.input_layouts(path) for path in candidate.pairs},
        _shapes(abstract),
        [f"params/{leaf.path}" for leaf in leaves[0] if leaf.idle],
        cells,
    )


def variables(
    mapping: Mapping, state: dict[str, NDArray], library: str, abstract: dict[str, Any], dtype: str
) -> dict[str, Any]:
    """A JAX model's variables as a mapping makes them of PyTorch's weights.

    Args:
        mapping: whose pairs are compared.
        state: PyTorch's state dict.
        library: of the JAX model.
        abstract: its variables' shapes.
        dtype: of the lane.

    Raises:
        CannotConvert: it is another model's, on either side.
    """
    names = {name: name if library == trees.LINEN else name.partition("/")[2] for name in _shapes(abstract)}
    shapes = {names[name]: shape for name, shape in _shapes(abstract).items()}
    needed = {names[name]: shapes[names[name]] for name in names if name.partition("/")[0] in trees.COLLECTIONS}
    mapping.check(library, needed, shapes)
    arrays = mapping.to_jax(state)
    made: dict[str, Any] = {}
    for path, variable in jax_leaves.variables_by_path(abstract):
        name = names["/".join(path)]
        array = arrays.get(name, np.zeros(shapes[name], variable.dtype))
        floating = np.issubdtype(variable.dtype, np.floating) or variable.dtype == jnp.bfloat16
        node = made
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = placed(array, DTYPES[dtype] if floating else variable.dtype)
    return made


def _shapes(abstract: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {"/".join(path): tuple(variable.shape) for path, variable in jax_leaves.variables_by_path(abstract)}
