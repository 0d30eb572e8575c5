"""Naming how a sequence goes wrong on its way into a recurrent layer, or from one: axes, direction, states."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest
from parity.causes.layer.parameters import Cause, explains


def explain(reference: NDArray, ours: NDArray, others: tuple[NDArray, ...], tolerance: float) -> list[Cause]:
    """Causes of a difference between what two recurrent layers get, steps first, in float64.

    Args:
        reference: PyTorch's.
        ours: Flax's.
        others: what PyTorch's layer gets besides.
        tolerance: largest difference that counts as none.
    """
    candidates: list[tuple[str, str, NDArray]] = []
    if reference.ndim == 3:
        text = "batch and time are exchanged: one side takes the other's axis of examples for that of steps"
        candidates.append(("axes_exchanged", text, reference.swapaxes(0, 1)))
        text = "the sequence is processed in the other direction"
        candidates.append(("direction", text, reference[::-1]))
        candidates += [("order_reversed", text, array) for text, array in _reversed_parts(reference)]
    candidates += [("state_exchanged", "h and c are exchanged", other) for other in others if other.ndim == 2]
    if reference.ndim == 2 and (reference.any() != ours.any()):
        side = "jax" if reference.any() else "torch"
        return [Cause("state_ignored", side, "the initial state is zero", farthest(reference, ours), 0.0)]
    return _first(candidates, reference, ours, tolerance)


def behind(reference: NDArray, ours: NDArray, tolerance: float) -> list[Cause]:
    """Causes of a difference between what comes from recurrent layers: parts of it in reverse order of time."""
    candidates = [("order_reversed", text, array) for text, array in _reversed_parts(reference)]
    if reference.ndim == 3:
        text = "batch and time are exchanged"
        candidates.append(("axes_exchanged", text, reference.swapaxes(0, 1)))
    return _first(candidates, reference, ours, tolerance)


def _reversed_parts(reference: NDArray) -> Iterator[tuple[str, NDArray]]:
    """With the sequence, or one half of its features, from last to first, whichever axis are the steps."""
    half = reference.shape[-1] // 2
    parts = (
        ("the second half of the features (the backward direction's)", slice(half, None)),
        ("the first half of the features (the forward direction's)", slice(half)),
        ("the sequence", slice(None)),
    )
    for name, part in parts:
        for axis in (0, 1) if reference.ndim == 3 else ():
            changed = reference.copy()
            changed[..., part] = np.flip(reference, axis)[..., part]
            yield f"{name} comes in reverse order of time", changed


def _first(
    candidates: list[tuple[str, str, NDArray]], reference: NDArray, ours: NDArray, tolerance: float
) -> list[Cause]:
    before = farthest(reference, ours)
    for key, text, predicted in candidates:
        if predicted.shape == ours.shape and explains(before, after := farthest(predicted, ours), tolerance):
            return [Cause(key, "between", text, before, after)]
    return []
