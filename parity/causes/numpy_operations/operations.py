"""PyTorch's operations in NumPy and float64, by name: what the code between layers is run again with.

Each takes its arguments by the names of PyTorch's schemas, arrays in the places of tensors. Casts between formats of
floating-point numbers change nothing here: how numbers are rounded is told elsewhere. Sums, products and transforms are
here, the others in the files beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Each adds to OPERATIONS.
from parity.causes.numpy_operations import arithmetic, distances, layers, losses, moves  # noqa: F401
from parity.causes.numpy_operations.table import OPERATIONS, Arguments, CannotRun, axes_of, operation
from parity.kinds import registry
from parity.kinds.layer import Recorded

__all__ = ["OPERATIONS", "CannotRun"]

# Sums and products.


def _reduced(function: Callable[..., NDArray]) -> Callable[[Arguments], NDArray]:
    return lambda a: function(a["self"], axis=axes_of(a.get("dim")), keepdims=bool(a.get("keepdim", False)))


OPERATIONS |= {"sum": _reduced(np.sum), "mean": _reduced(np.mean), "amax": _reduced(np.max), "amin": _reduced(np.min)}
OPERATIONS |= {"any": _reduced(np.any), "all": _reduced(np.all), "prod": _reduced(np.prod)}


@operation("max")
def _maximum(a: Arguments) -> Any:
    if "other" in a:
        return np.maximum(a["self"], a["other"])
    if a.get("dim") is None:
        return np.max(a["self"])
    keep = bool(a.get("keepdim", False))
    return [np.max(a["self"], axis=a["dim"], keepdims=keep), np.argmax(a["self"], axis=a["dim"], keepdims=keep)]


@operation("argmax")
def _argmax(a: Arguments) -> NDArray:
    return np.argmax(a["self"], axis=a.get("dim"), keepdims=bool(a.get("keepdim", False)))


@operation("argmin")
def _argmin(a: Arguments) -> NDArray:
    return np.argmin(a["self"], axis=a.get("dim"), keepdims=bool(a.get("keepdim", False)))


def _variance(a: Arguments) -> NDArray:
    correction = a.get("correction", 1)
    return np.var(
        a["self"],
        axis=axes_of(a.get("dim")),
        ddof=1 if correction is None else correction,
        keepdims=bool(a.get("keepdim", False)),
    )


OPERATIONS["var"] = _variance
OPERATIONS["std"] = lambda a: np.sqrt(_variance(a))
OPERATIONS["var_mean"] = lambda a: [_variance(a), OPERATIONS["mean"](a)]
OPERATIONS["std_mean"] = lambda a: [np.sqrt(_variance(a)), OPERATIONS["mean"](a)]
OPERATIONS["cumsum"] = lambda a: np.cumsum(a["self"], a["dim"])
OPERATIONS["cumprod"] = lambda a: np.cumprod(a["self"], a["dim"])


@operation("logsumexp")
def _log_sum(a: Arguments) -> NDArray:
    axes, keep = axes_of(a["dim"]), bool(a.get("keepdim", False))
    top = np.max(a["self"], axis=axes, keepdims=True)
    total = np.log(np.sum(np.exp(a["self"] - top), axis=axes, keepdims=True)) + top
    return total if keep else np.squeeze(total, axes)


@operation("_softmax", "softmax", "_safe_softmax")
def softmax(a: Arguments) -> NDArray:
    """Shares along `dim`."""
    x = np.asarray(a["self"], np.float64)
    with np.errstate(all="ignore"):  # where everything is masked nothing is defined
        powers = np.exp(x - np.max(x, axis=a["dim"], keepdims=True))
        return powers / np.sum(powers, axis=a["dim"], keepdims=True)


@operation("_log_softmax")
def _log_softmax(a: Arguments) -> NDArray:
    x = np.asarray(a["self"], np.float64)
    x = x - np.max(x, axis=a["dim"], keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=a["dim"], keepdims=True))


def _scaled(x: Any, factor: Any) -> Any:
    return x if factor == 1 else factor * x


OPERATIONS |= {
    "matmul": lambda a: a["self"] @ a["other"],
    "mm": lambda a: a["self"] @ a["mat2"],
    "bmm": lambda a: a["self"] @ a["mat2"],
    "mv": lambda a: a["self"] @ a["vec"],
    "dot": lambda a: a["self"] @ a["tensor"],
    "addmm": lambda a: _scaled(a["self"], a.get("beta", 1)) + _scaled(a["mat1"] @ a["mat2"], a.get("alpha", 1)),
    "baddbmm": lambda a: _scaled(a["self"], a.get("beta", 1)) + _scaled(a["batch1"] @ a["batch2"], a.get("alpha", 1)),
    "einsum": lambda a: np.einsum(a["equation"], *a["operands"], optimize=True),
    "linear": lambda a: a["input"] @ a["weight"].T + (0.0 if a.get("bias") is None else a["bias"]),
}

# Attention, as it is taken apart in `parity.causes.graph.graph`.


@operation("_as_many_heads")
def _as_many_heads(a: Arguments) -> NDArray:
    return np.repeat(a["self"], a["like"].shape[-3] // a["self"].shape[-3], -3)


@operation("_attention_scale")
def _attention_scale(a: Arguments) -> NDArray:
    scale = a.get("scale")
    return a["self"] * (1 / math.sqrt(a["query"].shape[-1]) if scale is None else scale)


@operation("_causal")
def _causal(a: Arguments) -> NDArray:
    return np.where(np.tril(np.ones(a["self"].shape[-2:], bool)), a["self"], -np.inf)


@operation("_masked")
def _masked(a: Arguments) -> NDArray:
    mask = a["mask"]
    return np.where(mask, a["self"], -np.inf) if mask.dtype == bool else a["self"] + mask


OPERATIONS["_several"] = lambda a: [a["self"]]

# Norms and pools.


@operation("native_layer_norm", "layer_norm")
def _layer_norm(a: Arguments) -> Any:
    x = a["input"]
    axes = tuple(range(-len(a["normalized_shape"]), 0))
    scale = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + a.get("eps", 1e-5))
    y = (x - x.mean(axis=axes, keepdims=True)) * scale
    y = y if a.get("weight") is None else y * a["weight"]
    return y if a.get("bias") is None else y + a["bias"]


OPERATIONS["native_layer_norm"] = lambda a: [_layer_norm(a), np.zeros(0), np.zeros(0)]


def _known(name: str, several: bool = False) -> Callable[[Arguments], Any]:
    """What a kind of layer computes, where code calls it as an operation."""

    def compute(a: Arguments) -> Any:
        known = registry.operation(name)
        settings = None if known is None else known.settings([v for k, v in a.items() if k != "self"])
        layer = None
        if known is not None and settings is not None:
            layer = registry.layer(Recorded(known.class_name, settings, a["self"]))
        if layer is None:
            raise CannotRun(name)
        return [layer.compute(), np.zeros(0)] if several else layer.compute()

    return compute


for _name in ("max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d"):
    OPERATIONS[_name] = _known(_name)
OPERATIONS["max_pool2d_with_indices"] = _known("max_pool2d_with_indices", several=True)


@operation("upsample_nearest2d")
def _nearest(a: Arguments) -> NDArray:
    x, (height, width) = a["self"], a["output_size"]
    rows = np.arange(height) * x.shape[-2] // height
    return x[..., rows[:, None], np.arange(width) * x.shape[-1] // width]


@operation("topk")
def _topk(a: Arguments) -> list[NDArray]:
    order = np.argsort(-a["self"] if a.get("largest", True) else a["self"], axis=a.get("dim", -1), kind="stable")
    order = np.take(order, range(a["k"]), a.get("dim", -1))
    return [np.take_along_axis(a["self"], order, a.get("dim", -1)), order]


# Fourier transforms, unscaled, scaled by the root of the number of points, or by the number.


def _points(a: Arguments, count: int) -> float:
    return {0: 1.0, 1: count**-0.5, 2: 1 / count}[a["normalization"]]


@operation("_fft_r2c")
def _fft_of_real(a: Arguments) -> NDArray:
    x, dims = a["self"], tuple(a["dim"])
    scale = _points(a, math.prod(x.shape[d] for d in dims))
    return scale * (np.fft.rfftn if a.get("onesided", True) else np.fft.fftn)(x, axes=dims)


@operation("_fft_c2r")
def _fft_to_real(a: Arguments) -> NDArray:
    x, dims = a["self"], tuple(a["dim"])
    sizes = [x.shape[d] for d in dims[:-1]] + [a["last_dim_size"]]
    count = math.prod(sizes)
    return count * _points(a, count) * np.fft.irfftn(x, s=sizes, axes=dims)


@operation("_fft_c2c")
def _fft(a: Arguments) -> NDArray:
    x, dims = a["self"], tuple(a["dim"])
    count = math.prod(x.shape[d] for d in dims)
    return _points(a, count) * (np.fft.fftn(x, axes=dims) if a["forward"] else count * np.fft.ifftn(x, axes=dims))
