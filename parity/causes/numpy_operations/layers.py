"""PyTorch's layers as operations, in NumPy: for models that are run again as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations.table import OPERATIONS, Arguments, CannotRun, operation
from parity.kinds import registry
from parity.kinds.layer import Recorded


@operation("convolution", "_convolution")
def _convolution(a: Arguments) -> NDArray:
    x, weight, bias = a["input"], a["weight"], a.get("bias")
    if a.get("transposed"):
        return _transposed(a)
    flat = x.ndim == 3
    if x.ndim not in (3, 4):
        raise CannotRun("this convolution isn't written out")

    def both(values: Any, rest: int) -> list[int]:
        return [rest, *values] if flat else list(values)

    settings = {
        "stride": both(a["stride"], 1),
        "padding": both(a["padding"], 0),
        "dilation": both(a["dilation"], 1),
        "groups": a["groups"],
        "padding_mode": "zeros",
        "kernel_size": both(weight.shape[2:], 1),
    }
    weights = {"weight": weight[:, :, None] if flat else weight} | ({} if bias is None else {"bias": bias})
    layer = registry.layer(Recorded("Conv2d", settings, x[:, :, None] if flat else x, weights))
    if layer is None:
        raise CannotRun("this convolution isn't written out")
    y = layer.compute()
    return y[:, :, 0] if flat else y


def _transposed(a: Arguments) -> NDArray:
    """As a convolution of the input with zeros in it, by the mirrored kernel, its channels exchanged."""
    x, weight, groups = np.asarray(a["input"]), a["weight"], a["groups"]
    rank = x.ndim - 2
    spread = np.zeros((*x.shape[:2], *(s * (n - 1) + 1 for s, n in zip(a["stride"], x.shape[2:], strict=True))))
    spread[(..., *(slice(None, None, s) for s in a["stride"]))] = x
    pads, cuts = [(0, 0), (0, 0)], [slice(None), slice(None)]
    for n, d, p, more in zip(weight.shape[2:], a["dilation"], a["padding"], a["output_padding"], strict=True):
        before, behind = d * (n - 1) - p, d * (n - 1) - p + more
        pads.append((max(before, 0), max(behind, 0)))
        cuts.append(slice(max(-before, 0), -max(-behind, 0) or None))
    grouped = np.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, -1, *weight.shape[1:])
    kernel = grouped.swapaxes(1, 2).reshape(-1, grouped.shape[1], *weight.shape[2:])
    plain = {"stride": [1] * rank, "padding": [0] * rank, "transposed": False, "weight": kernel}
    return _convolution({**a, **plain, "input": np.pad(spread, pads)[tuple(cuts)]})


@operation("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(a: Arguments) -> list[NDArray]:
    x = a["input"]
    shape, axes = [1, -1] + [1] * (x.ndim - 2), (0, *range(2, x.ndim))
    own = bool(a.get("training")) or a.get("running_mean") is None
    mean, variance = (x.mean(axes), x.var(axes)) if own else (a["running_mean"], a["running_var"])
    y = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + a["eps"])
    for name, change in (("weight", np.multiply), ("bias", np.add)):
        if a.get(name) is not None:
            y = change(y, a[name].reshape(shape))
    return [y, np.zeros(0), np.zeros(0)]


@operation("native_group_norm")
def _group_norm(a: Arguments) -> list[NDArray]:
    x = a["input"]
    grouped = x.reshape(x.shape[0], a["group"], -1)
    y = grouped - grouped.mean(-1, keepdims=True)
    y = (y / np.sqrt(grouped.var(-1, keepdims=True) + a["eps"])).reshape(x.shape)
    shape = [1, -1] + [1] * (x.ndim - 2)
    for name, change in (("weight", np.multiply), ("bias", np.add)):
        if a.get(name) is not None:
            y = change(y, a[name].reshape(shape))
    return [y, np.zeros(0), np.zeros(0)]


def resized(x: NDArray, weights: tuple[NDArray, NDArray]) -> NDArray:
    """Maps (..., H, W) as sums of their rows and columns."""
    return weights[0] @ x @ weights[1].T


def linear_weights(pixels: int, outputs: int, corners: bool, scale: float | None = None) -> NDArray:
    """(outputs, pixels): what each output of linear interpolation takes of which pixels, as PyTorch places them."""
    places = _places(pixels, outputs, corners, scale)
    places = places if corners else np.maximum(places, 0)
    low = np.minimum(np.floor(places).astype(int), pixels - 1)
    high, share = np.minimum(low + 1, pixels - 1), places - low
    weights = np.zeros((outputs, pixels))
    np.add.at(weights, (np.arange(outputs), low), 1 - share)
    np.add.at(weights, (np.arange(outputs), high), share)
    return weights


def cubic_weights(pixels: int, outputs: int, corners: bool, scale: float | None = None, bend: float = -0.75) -> NDArray:
    """Likewise of cubic interpolation, whose curves have the parameter `bend`."""
    places = _places(pixels, outputs, corners, scale)
    low, weights = np.floor(places).astype(int), np.zeros((outputs, pixels))
    for k in range(-1, 3):
        far = np.abs(places - low - k)
        near = (bend + 2) * far**3 - (bend + 3) * far**2 + 1
        outer = bend * (far**3 - 5 * far**2 + 8 * far - 4)
        where = np.clip(low + k, 0, pixels - 1)
        np.add.at(weights, (np.arange(outputs), where), np.where(far <= 1, near, np.where(far < 2, outer, 0.0)))
    return weights


def nearest_weights(pixels: int, outputs: int, centred: bool = False) -> NDArray:
    """Likewise of one pixel for each output: as PyTorch's `nearest` has it, or `nearest-exact`, JAX's only one."""
    weights, places = np.zeros((outputs, pixels)), np.arange(outputs)
    chosen = (2 * places + 1) * pixels // (2 * outputs) if centred else places * pixels // outputs
    weights[places, chosen] = 1.0
    return weights


def _places(pixels: int, outputs: int, corners: bool, scale: float | None) -> NDArray:
    if corners:
        return np.arange(outputs) * ((pixels - 1) / (outputs - 1) if outputs > 1 else 0.0)
    return (np.arange(outputs) + 0.5) * (1 / scale if scale else pixels / outputs) - 0.5


def _interpolation(weights: Any) -> Any:
    def compute(a: Arguments) -> NDArray:
        x, size, corners = a["self"], a["output_size"], bool(a["align_corners"])
        scales = a.get("scales_h"), a.get("scales_w")
        sides = zip(x.shape[-2:], size, scales, strict=True)
        rows, columns = (weights(n, m, corners, scale) for n, m, scale in sides)
        return resized(x, (rows, columns))

    return compute


OPERATIONS["upsample_bilinear2d"] = _interpolation(linear_weights)
OPERATIONS["upsample_bicubic2d"] = _interpolation(cubic_weights)


@operation("glu")
def _glu(a: Arguments) -> NDArray:
    one, two = np.split(a["self"], 2, a.get("dim", -1))
    return one / (1 + np.exp(-two))
