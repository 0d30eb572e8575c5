"""PyTorch's norms, distances and similarities in NumPy: what models give that compare two things."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations.table import OPERATIONS, Arguments, axes_of, operation


def norm(x: NDArray, order: Any, axes: tuple[int, ...] | None, keep: bool = False) -> NDArray:
    """The norm of an order along axes, 2 if none is told."""
    size, order = np.abs(x), 2.0 if order is None else float(order)
    if np.isinf(order):
        return (np.max if order > 0 else np.min)(size, axis=axes, keepdims=keep)
    if order == 0:
        return np.sum(size != 0, axis=axes, keepdims=keep).astype(np.float64)
    return np.sum(size**order, axis=axes, keepdims=keep) ** (1 / order)


OPERATIONS["linalg_vector_norm"] = lambda a: norm(
    a["self"], a.get("ord", 2), axes_of(a.get("dim")), bool(a.get("keepdim", False))
)
OPERATIONS["norm"] = lambda a: norm(a["self"], a.get("p", 2), axes_of(a.get("dim")), bool(a.get("keepdim", False)))


@operation("pairwise_distance")
def _pairwise_distance(a: Arguments) -> NDArray:
    apart = a["x1"] - a["x2"] + a.get("eps", 1e-6)
    return norm(apart, a.get("p", 2.0), (-1,), bool(a.get("keepdim", False)))


@operation("cosine_similarity")
def _cosine_similarity(a: Arguments) -> NDArray:
    axis, least = a.get("dim", 1), a.get("eps", 1e-8)
    one, two = (x / np.maximum(norm(x, 2, (axis,), True), least) for x in (a["x1"], a["x2"]))
    return np.sum(one * two, axis)


@operation("_cdist_forward")
def _all_distances(a: Arguments) -> NDArray:
    return norm(a["x1"][..., :, None, :] - a["x2"][..., None, :, :], a["p"], (-1,))


@operation("xlogy")
def _x_log_y(a: Arguments) -> NDArray:
    x, y = (np.asarray(a[name], np.float64) for name in ("self", "other"))
    with np.errstate(all="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))
