"""Naming a wrong gradient: the forward pass agrees, the backward pass doesn't.

The gradient of each kind of layer is written out once more in NumPy (`parity.kinds`), as a third witness, with the
mistakes that custom gradients suffer from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.layer.parameters import Cause, explains
from parity.causes.layer.related import scale_factor
from parity.kinds.layer import Layer


def explain(layer: Layer, g: NDArray, torch: NDArray, flax: NDArray, tolerance: float) -> list[Cause]:
    """Causes of a difference between two gradients with respect to a layer's input.

    Args:
        layer: with the input that both sides got.
        g: cotangent of its output.
        torch: PyTorch's gradient; likewise flax, all in PyTorch's layout and float64.
        flax: see `torch`.
        tolerance: largest difference that counts as none.
    """
    if torch.shape != flax.shape:
        return []
    before = farthest(torch, flax)
    right = layer.input_gradient(g)
    if right is None:
        return scaled(torch, flax, before, tolerance)
    sides = [("jax", flax, torch), ("torch", torch, flax)]
    for side, wrong, other in sides:
        if not within(farthest(right, other), tolerance):
            continue  # this one is no witness: it isn't right itself
        for key, text, predicted in layer.gradient_mistakes(g):
            after = farthest(predicted, wrong)
            if explains(before, after, tolerance) and not np.array_equal(predicted, right):
                return [Cause(key, side, f"wrong gradient: {text}", before, after)]
        if found := scaled(other, wrong, before, tolerance, side):
            return found
        after = farthest(right, other)
        if explains(before, after, tolerance):
            text = "wrong gradient: the forward pass agrees, the derivative written out in NumPy is the other side's"
            return [Cause("gradient", side, text, before, after)]
    return []


def scaled(other: NDArray, wrong: NDArray, before: float, tolerance: float, side: str = "between") -> list[Cause]:
    """The cause of one gradient that is the other one times a factor, or zero."""
    if not wrong.any() and other.any():
        return [Cause("gradient_missing", side, "wrong gradient: there is none", before, 0.0)]
    if (factor := scale_factor(other, wrong)) is None:
        return []
    after = farthest(other * factor, wrong)
    if not explains(before, after, tolerance):
        return []
    return [Cause("gradient_scaled", side, f"wrong gradient: scaled by {factor:.6g}", before, after)]


def at_zero(x: NDArray, torch: NDArray, flax: NDArray, tolerance: float) -> list[Cause]:
    """The cause of two gradients of an unknown function that differ only where its input is exactly 0."""
    if not x.shape == torch.shape == flax.shape:
        return []
    apart = np.abs(torch - flax) > tolerance
    if not apart.any() or (x[apart] != 0).any():
        return []
    first = tuple(int(i) for i in np.argwhere(apart)[0])
    text = (
        f"wrong gradient: the sides differ only where the input is exactly 0 ({int(apart.sum())} values), "
        f"first at {list(first)}: Flax {float(flax[first])!r}, PyTorch {float(torch[first])!r}"
    )
    before, after = float(np.max(np.abs(torch - flax))), float(np.max(np.abs(torch - flax)[~apart], initial=0.0))
    return [Cause("gradient_kink", "between", text, before, after)]
