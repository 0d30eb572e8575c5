"""PyTorch's losses in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations.table import Arguments, operation

# By the number that PyTorch has for it.
REDUCED = {0: lambda x: x, 1: np.mean, 2: np.sum}


def _of(a: Arguments, losses: NDArray) -> Any:
    weight = a.get("weight")
    return REDUCED[int(a.get("reduction", 1))](losses if weight is None else weight * losses)


@operation("mse_loss")
def _squares(a: Arguments) -> Any:
    return _of(a, np.square(a["self"] - a["target"]))


@operation("smooth_l1_loss")
def _smooth(a: Arguments) -> Any:
    apart, beta = np.abs(a["self"] - a["target"]), float(a.get("beta", 1.0))
    return _of(a, np.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2) if beta else apart)


@operation("huber_loss")
def _huber(a: Arguments) -> Any:
    apart, delta = np.abs(a["self"] - a["target"]), float(a.get("delta", 1.0))
    return _of(a, np.where(apart < delta, apart**2 / 2, delta * (apart - delta / 2)))


@operation("binary_cross_entropy")
def _binary_cross_entropy(a: Arguments) -> Any:
    p, target = np.asarray(a["self"], np.float64), a["target"]
    return _of(a, -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100)))


@operation("binary_cross_entropy_with_logits")
def _of_logits(a: Arguments) -> Any:
    z, target = np.asarray(a["self"], np.float64), a["target"]
    weight = 1.0 if a.get("pos_weight") is None else 1 + (a["pos_weight"] - 1) * target
    return _of(a, (1 - target) * z + weight * np.logaddexp(0, -z))


@operation("nll_loss_forward", "nll_loss2d_forward")
def _negative_logarithm(a: Arguments) -> list[Any]:
    shares, target, axis = np.asarray(a["self"]), np.asarray(a["target"]), min(np.ndim(a["self"]) - 1, 1)
    counted = target != a.get("ignore_index", -100)
    chosen = np.where(counted, target, 0)
    weight = np.ones(shares.shape[axis]) if a.get("weight") is None else a["weight"]
    weights = weight[chosen] * counted
    losses = -weights * np.take_along_axis(shares, np.expand_dims(chosen, axis), axis).squeeze(axis)
    reduction, total = int(a.get("reduction", 1)), weights.sum()
    return [losses if reduction == 0 else losses.sum() / (total if reduction == 1 else 1), total]
