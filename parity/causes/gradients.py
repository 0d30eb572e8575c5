"""Naming a wrong gradient: the forward pass agrees, the backward pass doesn't.

The gradient of each layer is written out once more in NumPy, as a third witness, with the mistakes that custom
gradients suffer from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.hypotheses import Parts
from parity.causes.parameters import Cause, explains
from parity.kinds import numpy_ops as ops

Gradient = NDArray


def explain(parts: Parts, g: NDArray, torch: NDArray, flax: NDArray, tolerance: float) -> list[Cause]:
    """Causes of a difference between two gradients with respect to a layer's input.

    Args:
        parts: the layer, see `hypotheses.parts_of`.
        g: cotangent of its output.
        torch: PyTorch's gradient; likewise flax, all in PyTorch's layout and float64.
        flax: see `torch`.
        tolerance: largest difference that counts as none.
    """
    if torch.shape != flax.shape:
        return []
    before = farthest(torch, flax)
    right = gradient(parts, g)
    if right is None:
        return scaled(torch, flax, before, tolerance)
    sides = [("jax", flax, torch), ("torch", torch, flax)]
    for side, wrong, other in sides:
        if not within(farthest(right, other), tolerance):
            continue  # this one is no witness: it isn't right itself
        for key, text, predicted in mistakes(parts, g):
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
    norm = float(np.vdot(other, other))
    if norm == 0:
        return []
    factor = float(np.vdot(other, wrong)) / norm
    after = farthest(other * factor, wrong)
    if abs(factor - 1) < 1e-12 or not explains(before, after, tolerance):
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


def gradient(parts: Parts, g: NDArray) -> Gradient | None:
    """Gradient of a layer with respect to its input, in closed form; None for layers without one here."""
    forms: dict[str, Callable[[Parts, NDArray], Gradient]] = {
        "lrn": _norm, "spatial": _norm, "max_pool": _max_pool, "average_pool": _average_pool,
        "relu": lambda p, g: np.where(p["x"] > 0, g, 0.0), "conv": _conv, "local_conv": _local_conv,
        "dropout": lambda p, g: g if p["mask"] is None else np.where(p["mask"], g / (1 - p["rate"]), 0.0),
        "dense": lambda p, g: (g @ p["weight"]).reshape(p["x"].shape),
    }  # fmt: skip
    form = forms.get(parts["op"])
    return None if form is None else form(parts, g)


def mistakes(parts: Parts, g: NDArray) -> Iterator[tuple[str, str, Gradient]]:
    """The mistakes that gradients suffer from, as (short name, text, the gradient that it gives)."""
    match parts["op"]:
        case "lrn" | "spatial":
            yield "gradient_cross_term", "the term that crosses channels is missing", _norm(parts, g, cross=0.0)
            yield "gradient_cross_term", "the crossing term has the wrong sign", _norm(parts, g, cross=-1.0)
            yield "gradient_factor_two", "the crossing term lacks its factor 2", _norm(parts, g, cross=0.5)
            yield "gradient_beta", "the crossing term lacks beta", _norm(parts, g, cross=1 / parts["beta"])
            yield "gradient_power", "the crossing term has the power -beta for -beta - 1", _norm(parts, g, power=0.0)
            yield "gradient_window", "the window isn't mirrored", _norm(parts, g, mirrored=False)
            size = parts["size"]
            for factor in (size, 1 / size, size**2, 1 / size**2):
                yield "gradient_alpha", "alpha is divided otherwise than forward", _norm(parts, g, cross=factor)
        case "max_pool":
            yield "gradient_ties", "every maximum of a window gets the gradient", _max_pool(parts, g, ties="all")
            yield "gradient_ties", "the last maximum of a window gets the gradient", _max_pool(parts, g, ties="last")
            yield "gradient_ties", "the maxima of a window share the gradient", _max_pool(parts, g, ties="shared")
            yield "gradient_ties", "equal maxima halve the gradient pair by pair", _max_pool(parts, g, ties="pairs")
            yield "gradient_overlap", "overlapping windows overwrite each other", _max_pool(parts, g, overwrite=True)
        case "average_pool":
            other = parts | {"clipped": not parts["clipped"]}
            yield "gradient_area", "it is divided by the other area than forward", _average_pool(other, g)
            yield "gradient_area", "it is not divided by the window's area", _average_pool(parts, g, divided=False)
        case "relu":
            yield "gradient_kink", "zero passes the gradient", np.where(parts["x"] >= 0, g, 0.0)
            halved = np.where(parts["x"] > 0, g, np.where(parts["x"] == 0, g / 2, 0.0))
            yield "gradient_kink", "zero passes half of the gradient, as a maximum of x and 0 does", halved
            yield "gradient_mask", "negative values pass the gradient", g
        case "conv":
            weight = parts["weight"]
            yield "gradient_flip", "the kernel is flipped", _conv(parts | {"weight": weight[..., ::-1, ::-1]}, g)
            yield "gradient_hw", "the kernel is transposed", _conv(parts | {"weight": weight.swapaxes(2, 3)}, g)
            groups = parts["groups"]
            if groups > 1:
                order = np.roll(np.arange(weight.shape[0]), weight.shape[0] // groups)
                yield "gradient_groups", "the groups are exchanged", _conv(parts | {"weight": weight[order]}, g)


def _norm(p: Parts, g: NDArray, *, cross: float = 1.0, power: float = 1.0, mirrored: bool = True) -> Gradient:
    """g_i s_i^-b - 2 a b x_i sum_{j: i in W(j)} g_j x_j s_j^(-b-1)."""
    x, beta, size = p["x"], p["beta"], p["size"]
    even = p.get("even", "left")
    before, after = (size // 2, (size - 1) // 2) if even == "left" else ((size - 1) // 2, size // 2)
    if p["op"] == "lrn":
        scale = p["alpha"] / size if p["divide_by_size"] else p["alpha"]
        names = ("size", "alpha", "k", "divide_by_size", "even", "columns")
        base = ops.response_base(x, **{n: p[n] for n in names})
    else:
        scale = p["alpha"] / size**2
        total = ops.window_sum(ops.window_sum(x**2, 2, before, after), 3, before, after)
        base = p["k"] + scale * total
    crossed = g * x * base ** (-beta - power)
    around = (after, before) if mirrored else (before, after)
    if p["op"] == "lrn":
        split = crossed.reshape(x.shape[0], p["columns"], x.shape[1] // p["columns"], *x.shape[2:])
        crossed = ops.window_sum(split, 2, *around).reshape(x.shape)
    else:
        crossed = ops.window_sum(ops.window_sum(crossed, 2, *around), 3, *around)
    return g * base**-beta - cross * 2 * scale * beta * x * crossed


def _spread(p: Parts, shares: Iterator[tuple[int, int, NDArray]], overwrite: bool = False) -> Gradient:
    """Put shares (row and column within the window, array of the output's shape) back at their pixels."""
    x, (rows, columns) = p["x"], p["stride"]
    (top, _), (left, _) = p["pads"]
    room = [n + 64 + sum(pad) for n, pad in zip(x.shape[2:], p["pads"], strict=True)]
    total = np.zeros((*x.shape[:2], *room))
    for i, j, share in shares:
        height, width = share.shape[2:]
        place = (..., slice(i, i + height * rows, rows), slice(j, j + width * columns, columns))
        if overwrite:
            total[place] = np.where(share != 0, share, total[place])
        else:
            total[place] += share
    return total[..., top : top + x.shape[2], left : left + x.shape[3]]


def _max_pool(p: Parts, g: NDArray, *, ties: str = "first", overwrite: bool = False) -> Gradient:
    seen = ops.patches(p["x"], p["kernel"], p["stride"], p["pads"], p["ceil"], p["fill"])
    flat = seen.reshape(*seen.shape[:4], -1)
    is_top = flat == flat.max(-1, keepdims=True)
    if ties == "first":
        chosen = np.arange(flat.shape[-1]) == is_top.argmax(-1)[..., None]
    elif ties == "last":
        last = flat.shape[-1] - 1 - is_top[..., ::-1].argmax(-1)
        chosen = np.arange(flat.shape[-1]) == last[..., None]
    else:
        chosen = is_top
    share = chosen / chosen.sum(-1, keepdims=True) if ties == "shared" else chosen
    if ties == "pairs":
        share = _halved(flat)
    width = p["kernel"][1]
    return _spread(p, ((k // width, k % width, g * share[..., k]) for k in range(flat.shape[-1])), overwrite)


def _halved(flat: NDArray) -> NDArray:
    """Shares of the last axis where the maximum is taken of two at a time, and equal ones get a half each."""
    share, best = np.zeros(flat.shape), np.full(flat.shape[:-1], -np.inf)
    for k in range(flat.shape[-1]):
        own = np.where(flat[..., k] > best, 1.0, np.where((flat[..., k] == best) & (k > 0), 0.5, 0.0))
        own = np.where(k == 0, 1.0, own)
        share *= (1 - own)[..., None]
        share[..., k] = own
        best = np.maximum(best, flat[..., k])
    return share


def _average_pool(p: Parts, g: NDArray, *, divided: bool = True) -> Gradient:
    ones = np.ones_like(p["x"][:1, :1])
    area = ops.patches(ones, p["kernel"], p["stride"], p["pads"], p["ceil"], 0.0).sum(axis=(4, 5))
    if not p["clipped"]:
        area = np.full_like(area, np.prod(p["kernel"]))
    share = g / area if divided else g
    height, width = p["kernel"]
    return _spread(p, ((i, j, share) for i in range(height) for j in range(width)))


def _conv(p: Parts, g: NDArray) -> Gradient:
    groups = p["groups"]
    height, width = p["weight"].shape[2:]

    def shares() -> Iterator[tuple[int, int, NDArray]]:
        for i in range(height):
            for j in range(width):
                parts = [
                    np.einsum("nohw,oc->nchw", part, kernel[..., i, j], optimize=True)
                    for part, kernel in zip(np.split(g, groups, 1), np.split(p["weight"], groups, 0), strict=True)
                ]
                yield i, j, np.concatenate(parts, axis=1)

    return _spread(p, shares())


def _local_conv(p: Parts, g: NDArray) -> Gradient:
    weight = p["weight"]
    height, width = weight.shape[4:]
    places = ((i, j) for i in range(height) for j in range(width))
    return _spread(p, ((i, j, np.einsum("nohw,hwoc->nchw", g, weight[..., i, j], optimize=True)) for i, j in places))
