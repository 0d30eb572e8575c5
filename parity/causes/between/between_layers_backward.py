"""Naming a wrong gradient between two layers: the functions that the reference ran there, backward, with one mistake.

As `between_layers` forward: PyTorch's recorded operations are rebuilt in NumPy if they form a plain chain, the gradient
goes back through them, and every mistake that gradients suffer from is made in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.between.between_layers import Link, chain
from parity.causes.layer import gradients as gradient_causes
from parity.causes.layer.parameters import Cause, explains
from parity.causes.layer.precision import of_values
from parity.kinds.activation import FUNCTIONS


def explain(
    ops: list[Any] | None,
    start: NDArray,
    coming: NDArray | None,
    torch: NDArray,
    flax: NDArray,
    tolerance: float,
    dtype: str,
) -> list[Cause]:
    """Causes of a difference between the gradients that two chains of functions hand back.

    Args:
        ops: recorded operations, [name, plain arguments], oldest first; None if they aren't known.
        start: what the chain started from, in PyTorch's layout.
        coming: gradient of what it gave; None if several chains started there.
        torch: PyTorch's gradient of the start; likewise flax, in PyTorch's layout.
        flax: see `torch`.
        tolerance: largest difference that counts as none.
        dtype: of the lane.
    """
    if torch.shape != flax.shape:
        return []
    theirs, mine = (np.asarray(array, np.float64) for array in (torch, flax))
    before = farthest(theirs, mine)
    links = chain(ops) if ops is not None and coming is not None else None
    right = None if links is None or coming is None else _backward(links, start, coming)
    if right is not None and min(farthest(right, mine), farthest(right, theirs)) > tolerance:
        right = None  # several chains start here: this one alone is no witness
    for side, wrong, other in (("jax", mine, theirs), ("torch", theirs, mine)):
        if right is not None and not within(farthest(right, other), tolerance):
            continue
        if links is not None and coming is not None and right is not None:
            for key, text, predicted in _mistakes(links, start, coming):
                after = farthest(predicted, wrong)
                if explains(before, after, tolerance) and farthest(predicted, right) > tolerance:
                    return [Cause(key, side, f"wrong gradient: {text}", before, after)]
        if found := gradient_causes.scaled(other, wrong, before, tolerance, side if right is not None else "between"):
            return found
    found = of_values(theirs, mine, dtype, "the gradient is")
    return found or gradient_causes.at_zero(np.asarray(start, np.float64), theirs, mine, tolerance)


def _steps(links: list[Link], start: NDArray) -> list[NDArray] | None:
    """The input of each link and the result of the last."""
    values = [np.asarray(start, np.float64)]
    try:
        for link in links:
            values.append(link.run(values[-1]))
    except (ValueError, IndexError):
        return None
    return values


def _backward(links: list[Link], start: NDArray, g: NDArray) -> NDArray | None:
    values = _steps(links, start)
    if values is None or values[-1].size != g.size:
        return None
    coming: NDArray | None = np.asarray(g, np.float64).reshape(values[-1].shape)
    for i in reversed(range(len(links))):
        coming = None if coming is None else _through(links[i], values[i], coming)
    return coming


def _through(link: Link, x: NDArray, g: NDArray) -> NDArray | None:
    if link.layer is not None:
        return replace(link.layer, x=x).input_gradient(g)
    name = link.name.split(" ")[0]
    if name == "flatten":
        return g.reshape(x.shape)
    if name in FUNCTIONS:
        return g * FUNCTIONS[name].slope(x)
    # Arithmetic with a constant: straight lines.
    return g * (link.run(np.ones(())) - link.run(np.zeros(()))) if name in ("add", "sub", "mul", "div") else None


def _mistakes(links: list[Link], start: NDArray, g: NDArray) -> Iterator[tuple[str, str, NDArray]]:
    values = _steps(links, start)
    if values is None:
        return
    coming: NDArray | None = np.asarray(g, np.float64).reshape(values[-1].shape)
    for i in reversed(range(len(links))):
        if coming is None:
            return
        layer = links[i].layer
        for key, text, wrong in () if layer is None else replace(layer, x=values[i]).gradient_mistakes(coming):
            if (predicted := _backward(links[:i], start, wrong)) is not None:
                yield key, f"{links[i].name}: {text}", predicted
        alike = coming is not None and coming.shape == values[i].shape
        if (
            alike
            and (layer is not None or links[i].name in FUNCTIONS)
            and (predicted := _backward(links[:i], start, coming)) is not None
        ):
            text = "the gradient passes as if it weren't there"
            yield "straight_through", f"{links[i].name}: {text}", predicted
        coming = _through(links[i], values[i], coming)
