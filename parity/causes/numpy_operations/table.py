"""The table of PyTorch's operations in NumPy: see `parity.causes.numpy_operations.operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arguments = dict[str, Any]
OPERATIONS: dict[str, Callable[[Arguments], Any]] = {}


class CannotRun(Exception):
    """A graph holds what can't be run again, or not with these shapes."""


def operation(*names: str) -> Callable[[Callable[[Arguments], Any]], Callable[[Arguments], Any]]:
    """Decorator: this is what the operations of these names compute.

    Raises:
        ValueError: one of them is in the table already: which of two would count is a matter of imports.
    """

    def add(function: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
        for name in names:
            if name in OPERATIONS:
                raise ValueError(f"{name} is in the table of operations already")
            OPERATIONS[name] = function
        return function

    return add


def axes_of(dims: Any) -> tuple[int, ...] | None:
    """Axes from a setting that is one, several, or none for all."""
    if dims is None or dims == []:
        return None
    return (int(dims),) if isinstance(dims, int) else tuple(int(d) for d in dims)


def typed(x: Any, dtype: Any) -> Any:
    """Numbers as PyTorch's dtype of this name has them; one of floating point is float64, whichever it is."""
    name = str(dtype or "").removeprefix("torch.")
    if name == "bool":
        return np.asarray(x) != 0
    if name.startswith(("int", "uint", "long")):
        return np.trunc(x).astype(np.int64)
    if name.startswith("complex") or np.iscomplexobj(x):
        return np.asarray(x, np.complex128)
    return np.asarray(x, np.float64) if name else x
