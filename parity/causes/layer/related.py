"""How two arrays that should be the same are related: what can be said of weights without knowing the layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.cause import Cause, alike, distinct


def described(name: str, theirs: NDArray, ours: NDArray) -> Cause:
    """A difference between two arrays of weights that no known mistake makes, as exactly as it can be said."""
    if ours.shape != theirs.shape:
        return Cause(f"{name}_shape", "between", f"{name} has shape {ours.shape} in Flax, {theirs.shape} in PyTorch")
    if not ours.any():
        return Cause(f"{name}_missing", "jax", f"{name} is zero")
    if not theirs.any():
        return Cause(f"{name}_missing", "torch", f"{name} is zero")
    if (ours == ours.flat[0]).all() and not (theirs == theirs.flat[0]).all():
        return Cause("not_converted", "jax", f"{name} is {float(ours.flat[0]):g} throughout: it was never filled in")
    factor = scale_factor(theirs, ours)
    if factor is not None and np.allclose(theirs * factor, ours, rtol=1e-6, atol=0):
        return Cause("scaled", "between", f"Flax's {name} is PyTorch's times {factor:.6g}")
    for axis, what in ((0, "output channels"), (1, "input channels")) if theirs.ndim in (1, 2, 4) else ():
        if axis < theirs.ndim and (order := permutation(theirs, ours, axis, 0.0)) is not None:
            return Cause("channels_permuted", "between", f"{what} of {name} are in another order: {moves(order)}")
    for key, words, change in _CHANGES:
        with np.errstate(all="ignore"):
            changed = change(theirs)
        if changed is not None and changed.shape == ours.shape and np.allclose(changed, ours, rtol=1e-12, atol=0):
            return Cause(key, "between", f"Flax's {name} is PyTorch's, {words}")
    wrong = np.argwhere(ours != theirs)
    first = tuple(int(i) for i in wrong[0])
    return Cause(
        f"{name}_differs",
        "between",
        f"{len(wrong)} of {ours.size} values of {name} differ, first at {list(first)}: "
        f"Flax {float(ours[first])!r}, PyTorch {float(theirs[first])!r}",
    )


def _transposed(w: NDArray) -> NDArray | None:
    return w.T if w.ndim == 2 and w.shape[0] == w.shape[1] else None


# What people do to weights on the way: short name, in words, made. Orders of channels are looked for by themselves.
_CHANGES: tuple[tuple[str, str, Callable[[NDArray], NDArray | None]], ...] = (
    ("kernel_transposed", "transposed", _transposed),
    ("kernel_reshaped", "reshaped where it should be transposed", lambda w: w.T.reshape(w.shape)),
    ("kernel_reshaped", "reshaped where it should be transposed", lambda w: w.reshape(w.shape[::-1]).T),
    ("scale_from_one", "less one", lambda w: w - 1),
    ("scale_from_one", "plus one", lambda w: w + 1),
    ("root", "its root", lambda w: np.sqrt(w)),
    ("square", "squared", lambda w: w * w),
    ("reciprocal", "its reciprocal", lambda w: 1 / w),
    ("reciprocal_root", "the reciprocal of its root", lambda w: 1 / np.sqrt(w)),
    ("absolute", "without its signs", np.abs),
    ("exponential", "its exponential", np.exp),
    ("logarithm", "its logarithm", np.log),
)


def scale_factor(base: NDArray, observed: NDArray) -> float | None:
    """The factor c that brings c * base nearest to `observed`; None if it is 1 as it is told, 0 or undefined.

    Undefined it is of copies of one value as well: they have some factor whatever is wrong.
    """
    norm = float(np.vdot(base, base))
    if norm == 0 or not np.isfinite(norm) or distinct(base) < 2:
        return None
    factor = float(np.vdot(base, observed)) / norm
    return factor if np.isfinite(factor) and factor != 0 and not alike(factor, 1.0) else None


def permutation(base: NDArray, observed: NDArray, axis: int, tolerance: float) -> NDArray | None:
    """The order in which slices of `base` along an axis give `observed`; None if there is none but the identity."""
    if base.shape != observed.shape or base.ndim <= axis:
        return None
    a = np.moveaxis(base, axis, 0).reshape(base.shape[axis], -1)
    b = np.moveaxis(observed, axis, 0).reshape(base.shape[axis], -1)
    moved = [i for i in range(len(a)) if not within(farthest(a[i], b[i]), tolerance)]
    if len(moved) > 1024:
        return None
    order = np.arange(len(a))
    free = set(moved)
    for i in moved:
        match = next((j for j in sorted(free) if within(farthest(a[j], b[i]), tolerance)), None)
        if match is None:
            return None
        order[i] = match
        free.discard(match)
    return order if moved else None


def moves(order: NDArray) -> str:
    """An order in words: what doesn't lie in its own place."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    shown = ", ".join(f"{int(i)} holds {int(order[i])}" for i in moved[:4])
    return shown + (f" and {len(moved) - 4} more" if len(moved) > 4 else "")


def same(a: NDArray | None, b: NDArray) -> bool:
    """Whether two arrays are equal, bit for bit."""
    return a is not None and a.shape == b.shape and np.array_equal(a, b)
