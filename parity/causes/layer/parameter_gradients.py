"""Naming a wrong gradient of a parameter: the layer's own is right, or the layer makes it wrong.

PyTorch's gradient is the one that a whole backward pass left in the parameter. The same layer run again by itself, on
the same input and the same cotangent, makes it without whatever hangs on the parameter; the derivative written out in
NumPy is the third witness.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.layer.parameters import Cause, explains
from parity.causes.layer.precision import coarser, of_values
from parity.causes.layer.related import scale_factor
from parity.kinds.layer import WrongGradient


def explain(
    torch: NDArray,
    flax: NDArray,
    alone: NDArray | None,
    right: NDArray | None,
    tolerance: float,
    dtype: str,
    mistakes: Iterable[WrongGradient] = (),
) -> list[Cause]:
    """Causes of a difference between two gradients with respect to one parameter, in one layout and float64.

    Args:
        torch: what PyTorch's whole backward pass left in the parameter; likewise flax.
        flax: see `torch`.
        alone: what PyTorch's layer makes when it runs by itself; None if it makes none.
        right: the derivative in NumPy; None if it isn't written out.
        tolerance: largest difference that counts as none.
        dtype: of the lane.
        mistakes: that such a gradient suffers from, made in NumPy.
    """
    if torch.shape != flax.shape:
        return []
    before = farthest(torch, flax)
    if alone is not None and within(farthest(alone, flax), tolerance) and farthest(alone, torch) > tolerance:
        text = f"the layer's gradient is changed before it reaches the parameter (a hook): {_changed(torch, alone)}"
        return [Cause("gradient_hook", "torch", text, before, farthest(alone, flax))]
    for key, text, predicted in mistakes:
        for side, wrong, other in (("jax", flax, torch), ("torch", torch, flax)):
            after = farthest(predicted, wrong)
            witnessed = right is not None and within(farthest(right, other), tolerance)
            if witnessed and explains(before, after, tolerance):
                return [Cause(key, side, f"wrong gradient: {text}", before, after)]
    for side, wrong, other in (("jax", flax, torch), ("torch", torch, flax)):
        if right is not None and not within(farthest(right, other), tolerance):
            continue  # this one is no witness: it isn't right itself
        known = side if right is not None else "between"
        if not wrong.any():
            return [Cause("gradient_missing", side, "the parameter gets no gradient", before, 0.0)]
        if (factor := scale_factor(other, wrong)) is not None:
            after = farthest(other * factor, wrong)
            if explains(before, after, tolerance * max(abs(factor), 1)):
                return [Cause("gradient_scaled", known, f"wrong gradient: scaled by {factor:.6g}", before, after)]
    if found := of_values(torch, flax, dtype, "the gradient is"):
        return found
    for side, wrong, other in (("jax", flax, torch), ("torch", torch, flax)):
        if right is not None and within(farthest(right, other), tolerance) and farthest(right, wrong) > tolerance:
            text = "wrong gradient of the parameter: the derivative written out in NumPy is the other side's"
            return [Cause("gradient", side, text, before, farthest(right, other))]
    return []


def of_uses(torch: NDArray, flax: NDArray, alone: NDArray, tolerance: float, where: str) -> list[Cause]:
    """Causes of a wrong gradient of a parameter that is used in several places: a part that is missing.

    Args:
        torch: PyTorch's gradient; likewise flax, in one layout.
        flax: see `torch`.
        alone: PyTorch's as far as it is of its own layer's calls.
        tolerance: largest difference that counts as none.
        where: that layer.
    """
    before = farthest(torch, flax)
    for text, predicted in (
        (
            f"only what {where} itself does with it counts: elsewhere a copy of it, or one without gradient, is used",
            alone,
        ),
        (f"what {where} itself does with it doesn't count, only what is done with it elsewhere", torch - alone),
    ):
        after = farthest(predicted, flax)
        if predicted.shape == torch.shape and explains(before, after, tolerance):
            return [Cause("tied_weight", "jax", f"wrong gradient of a tied weight: {text}", before, after)]
    return []


def _changed(whole: NDArray, alone: NDArray) -> str:
    if not whole.any():
        return "it is lost"
    for form in coarser("float64").values():
        if np.array_equal(form.rounded(alone), whole):
            return f"rounded to {form.name}"
    if (factor := scale_factor(alone, whole)) is not None and np.allclose(whole, factor * alone, rtol=1e-6, atol=0):
        return f"scaled by {factor:.6g}"
    clipped = float(np.max(np.abs(whole)))
    if np.array_equal(np.clip(alone, -clipped, clipped), whole):
        return f"clipped at {clipped:.6g}"
    different = int(np.sum(whole != alone))
    return f"{different} of {whole.size} values differ"
