"""Naming what is wrong with a parameter of a function: whose values it holds, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidate.function_parameters import Parameter, moves
from parity.causes.cause import Cause
from parity.causes.layer import related


def explain(parameter: Parameter, leaf: Any, values: dict[str, NDArray]) -> list[Cause]:
    """Causes of a difference between a parameter and its partner's values.

    Args:
        parameter: which is whose.
        leaf: what the tree holds.
        values: PyTorch's parameters, by name.
    """
    ours, theirs = np.asarray(leaf, np.float64), np.asarray(parameter.value(values), np.float64)
    for name, array in values.items():
        if name not in parameter.torch_names and array.size == ours.size > 1:
            whole = np.asarray(array, np.float64)
            if any(np.array_equal(move(whole), ours) for move in moves(array.shape, ours.shape)):
                return [Cause("weights_exchanged", "jax", f"it holds PyTorch's {name}, not {parameter.torch_name}")]
    for axis in range(theirs.ndim):
        if (order := related.permutation(theirs, ours, axis, 0.0)) is not None:
            text = f"along axis {axis} of {list(theirs.shape)} its values are in another order: {related.moves(order)}"
            return [Cause("order", "jax", text)]
    found = related.described("it", theirs, ours)
    return [] if found.key.endswith(("_differs", "_shape")) else [found]
