"""The arrays of a comparison's worst row, which its report shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.reports.rows import Row

# Larger arrays (gradients of fully connected layers) aren't kept for the report.
_KEPT_ELEMENTS = 4_000_000


class Worst:
    """The worst row so far, and its arrays: `jax`, `torch` and, where their shapes agree, their `difference`."""

    def __init__(self) -> None:
        self.row: Row | None = None
        self.arrays: dict[str, NDArray] = {}

    def keep(self, row: Row, ours: NDArray, reference: NDArray) -> None:
        """Keep a row and its arrays instead, if it is worse."""
        if ours.size <= _KEPT_ELEMENTS and _rank(row) > _rank(self.row):
            self.row = row
            self.arrays = {"jax": np.asarray(ours, np.float64), "torch": np.asarray(reference, np.float64)}
            if ours.shape == reference.shape:
                self.arrays["difference"] = difference(self.arrays["jax"], self.arrays["torch"])


def _rank(row: Row | None) -> tuple[int, float]:
    """A first divergence outranks all, however large; else what uses most of its bound does."""
    if row is None:
        return (-1, 0.0)
    if row.equal:
        return 0, row.fraction
    if row.open:
        return 1, row.max_error
    # Backward passes come after all forward ones, from the last layer to the first.
    backward = row.stage == "cotangent" or row.stage.startswith("backward")
    return 2, row.order - 1e9 if backward else -float(row.order)
