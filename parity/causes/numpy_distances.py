"""PyTorch's distances, similarities and losses, in NumPy: what models give that compare two things."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_table import OPERATIONS, Arguments, axes_of, operation


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


_OF_ALL = {0: lambda x: x, 1: np.mean, 2: np.sum}


def _told(losses: NDArray, a: Arguments) -> Any:
    return _OF_ALL[int(a.get("reduction", 1))](losses)


@operation("mse_loss")
def _squares(a: Arguments) -> Any:
    return _told(np.square(a["self"] - a["target"]), a)


@operation("smooth_l1_loss")
def _smooth(a: Arguments) -> Any:
    apart, beta = np.abs(a["self"] - a["target"]), a.get("beta", 1.0)
    return _told(np.where(apart < beta, apart**2 / (2 * beta or 1.0), apart - beta / 2), a)


@operation("huber_loss")
def _huber(a: Arguments) -> Any:
    apart, delta = np.abs(a["self"] - a["target"]), a.get("delta", 1.0)
    return _told(np.where(apart <= delta, apart**2 / 2, delta * (apart - delta / 2)), a)


@operation("binary_cross_entropy")
def _binary_cross_entropy(a: Arguments) -> Any:
    p, target = np.asarray(a["self"], np.float64), a["target"]
    losses = -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100))
    return _told(losses if a.get("weight") is None else a["weight"] * losses, a)


@operation("binary_cross_entropy_with_logits")
def _of_logits(a: Arguments) -> Any:
    x, target = np.asarray(a["self"], np.float64), a["target"]
    heavier = 1.0 if a.get("pos_weight") is None else a["pos_weight"]
    losses = heavier * target * np.logaddexp(0, -x) + (1 - target) * np.logaddexp(0, x)
    return _told(losses if a.get("weight") is None else a["weight"] * losses, a)


@operation("nll_loss_forward", "nll_loss2d_forward")
def _negative_log_likelihood(a: Arguments) -> list[Any]:
    x, target = a["self"], a["target"]
    axis = 0 if x.ndim == 1 else 1
    counted = target != a.get("ignore_index", -100)
    chosen = np.where(counted, target, 0)
    weights = counted * (1.0 if a.get("weight") is None else a["weight"][chosen])
    losses = -weights * np.squeeze(np.take_along_axis(x, np.expand_dims(chosen, axis), axis), axis)
    total = weights.sum()
    told = {0: losses, 1: losses.sum() / total, 2: losses.sum()}[int(a.get("reduction", 1))]
    return [np.asarray(told), np.asarray(total)]


@operation("xlogy")
def _x_log_y(a: Arguments) -> NDArray:
    x, y = (np.asarray(a[name], np.float64) for name in ("self", "other"))
    with np.errstate(all="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))
