"""A cause of a divergence, and when a counterfactual has shown it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import within

FALL = 1000.0
_SIGNIFICANT = 6  # digits of a number that are told


def explains(before: float, after: float, tolerance: float, fall: float = FALL) -> bool:
    """Whether undoing a mistake takes a difference away: below what is allowed, and by so much that it was the mistake.

    Args:
        before: the difference with the mistake, infinite where shapes differ or something isn't finite.
        after: what is left without it.
        tolerance: largest difference that counts as none; none explains anything if it isn't finite.
        fall: by which factor it must fall at least.
    """
    return math.isfinite(tolerance) and within(after, tolerance) and after * fall <= before


def alike(one: float, other: float) -> bool:
    """Whether two numbers are the same as they are told: then "1 times PyTorch's" would be no cause, but a rounding."""
    return f"{one:.{_SIGNIFICANT}g}" == f"{other:.{_SIGNIFICANT}g}"


def distinct(values: NDArray) -> int:
    """How many different numbers are among these, but for zero: copies of one number agree on whatever one says."""
    return len(np.unique(values[np.isfinite(values) & (values != 0)]))


@dataclass(frozen=True)
class Cause:
    """A mistake that explains a divergence.

    Attributes:
        key: short name, as of a `parity.kinds.layer.Mistake`.
        side: `jax`, `torch`, or `between` where only the difference is known.
        text: what is wrong, in words.
        before: residual with the mistake; not a number where shapes alone decide. Likewise after, without it.
        after: see `before`.
    """

    key: str
    side: str
    text: str
    before: float = float("nan")
    after: float = float("nan")

    def __str__(self) -> str:
        who = {"jax": "JAX: ", "torch": "PyTorch: "}.get(self.side, "")
        if math.isnan(self.after):
            return f"{who}{self.text}"
        return f"{who}{self.text} (undone, the difference falls from {self.before:.1e} to {self.after:.1e})"
