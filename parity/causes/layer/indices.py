"""Causes of a difference between two arrays of indices, such as the tokens that an embedding gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parity.causes.cause import Cause


def explain(ours: NDArray, reference: NDArray) -> list[Cause]:
    """Causes of a difference between two arrays of indices."""
    if ours.shape != reference.shape or not np.issubdtype(reference.dtype, np.integer):
        return []
    apart = np.asarray(ours, np.int64) - np.asarray(reference, np.int64)
    # A single index is larger by some number whatever is wrong.
    if len(np.unique(reference)) > 1 and (apart == apart.flat[0]).all() and apart.flat[0] != 0:
        text = (
            f"indices are larger by {apart.flat[0]}"
            if apart.flat[0] > 0
            else f"indices are smaller by {-apart.flat[0]}"
        )
        return [Cause("index_offset", "jax", text, float(abs(apart.flat[0])), 0.0)]
    for axis in range(reference.ndim):
        for by in (1, -1):
            if (np.roll(reference, by, axis) == ours).all():
                return [
                    Cause(
                        "rolled", "jax", f"indices are rolled by {by} along axis {axis}", float(abs(apart).max()), 0.0
                    )
                ]
        if (np.flip(reference, axis) == ours).all():
            return [Cause("mirrored", "jax", f"indices run backwards along axis {axis}", float(abs(apart).max()), 0.0)]
    return []
