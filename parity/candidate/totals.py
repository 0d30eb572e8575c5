"""Gradients of parameters that several calls of one layer add to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.magnitudes import Bound
from parity.candidate.jax_visit import Visit


class Total:
    """The gradient of one parameter, added up over the calls of its leaf; all arrays in Flax's layout and float64.

    Args:
        visit: the first call.
        name: of the parameter in Flax.
        move: brings PyTorch's arrays into Flax's layout.
    """

    def __init__(self, visit: Visit, name: str, move: Callable[[NDArray], NDArray]) -> None:
        self.visit, self.name, self.move = visit, name, move
        self.calls = self.n = 0
        self.ours: Any = 0.0
        self.alone: Any = 0.0
        self.allowed: Any = 0.0
        self.size: Any = 0.0
        self.unknown: tuple[str, ...] = ()

    def add(self, ours: NDArray, alone: NDArray, bound: Bound | None) -> None:
        """Add one call's: Flax's gradient, that of PyTorch's replay, and what they may differ by."""
        self.calls += 1
        self.n = max(self.n, bound.n if bound else 0)
        self.ours = self.ours + np.asarray(ours, np.float64)
        self.alone = self.alone + np.asarray(alone, np.float64)
        self.size = self.size + np.abs(np.asarray(alone, np.float64))
        self.allowed = self.allowed + (bound.allowed if bound else 0.0)
        self.unknown = tuple(dict.fromkeys([*self.unknown, *(bound.unknown if bound else ())]))
