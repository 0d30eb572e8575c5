"""The layers once more, in NumPy and float64: what a hypothesis about a bug predicts is computed here.

A third implementation, so that neither framework's own code decides what its bug looks like. Maps are NCHW and
kernels OIHW, as in PyTorch; whole-array arithmetic, fast enough for full-size layers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Pads = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


def windows_along(size: int, kernel: int, stride: int, ceil: bool) -> int:
    """Windows along one padded side; with `ceil` the last may hang over, but never start beyond the end."""
    free = size - kernel
    count = 1 + (-(-free // stride) if ceil else free // stride)
    return count - 1 if ceil and (count - 1) * stride >= size else max(count, 0)


def patches(
    x: NDArray, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, ceil: bool, fill: float
) -> NDArray:
    """Every window of every map: (N, C, H', W', kernel height, kernel width), beyond the edge `fill`."""
    edges = [(0, 0), (0, 0)]
    counts = []
    for axis in range(2):
        low, high = pads[axis]
        count = windows_along(x.shape[2 + axis] + low + high, kernel[axis], stride[axis], ceil)
        reach = (count - 1) * stride[axis] + kernel[axis]
        edges.append((low, max(high, reach - x.shape[2 + axis] - low)))
        counts.append(count)
    padded = np.pad(x, edges, constant_values=fill)
    views = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return views[:, :, : counts[0], : counts[1]]


def conv2d(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None,
    *,
    stride: tuple[int, int] = (1, 1),
    pads: Pads = ((0, 0), (0, 0)),
    groups: int = 1,
    ceil: bool = False,
) -> NDArray:
    """Cross-correlation of maps (N, C, H, W) with kernels (O, C / groups, h, w)."""
    seen = patches(x, weight.shape[2:], stride, pads, ceil, 0.0)
    parts = []
    for inputs, kernel in zip(np.split(seen, groups, axis=1), np.split(weight, groups, axis=0), strict=True):
        parts.append(np.moveaxis(np.tensordot(inputs, kernel, axes=((1, 4, 5), (1, 2, 3))), -1, 1))
    out = np.concatenate(parts, axis=1)
    return out if bias is None else out + bias[:, None, None]


def local_conv2d(x: NDArray, weight: NDArray, bias: NDArray | None, *, stride: tuple[int, int], pads: Pads) -> NDArray:
    """Unshared convolution: weight (H', W', O, C, h, w), bias (H', W', O)."""
    seen = patches(x, weight.shape[4:], stride, pads, False, 0.0)
    out = np.einsum("nchwij,hwocij->nohw", seen, weight, optimize=True)
    return out if bias is None else out + bias.transpose(2, 0, 1)


def dense(x: NDArray, weight: NDArray, bias: NDArray | None) -> NDArray:
    """Rows of x (N, inputs) times weight (outputs, inputs)."""
    out = x @ weight.T
    return out if bias is None else out + bias


def max_pool(
    x: NDArray, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, ceil: bool, fill: float = -np.inf
) -> NDArray:
    """Maximum of each window; `fill` stands beyond the edge."""
    return patches(x, kernel, stride, pads, ceil, fill).max(axis=(4, 5))


def average_pool(
    x: NDArray, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, ceil: bool, clipped: bool
) -> NDArray:
    """Mean of each window, over its part inside the map if `clipped`, else over its full area."""
    total = patches(x, kernel, stride, pads, ceil, 0.0).sum(axis=(4, 5))
    if not clipped:
        return total / math.prod(kernel)
    area = patches(np.ones_like(x[:1, :1]), kernel, stride, pads, ceil, 0.0).sum(axis=(4, 5))
    return total / np.maximum(area, 1)


def adaptive_average_pool(x: NDArray, size: tuple[int, int]) -> NDArray:
    """PyTorch's AdaptiveAvgPool2d: window i of m over n pixels is [floor(i n / m), ceil((i + 1) n / m))."""
    for axis, m in zip((2, 3), size, strict=True):
        n = x.shape[axis]
        parts = [np.take(x, range(i * n // m, -(-(i + 1) * n // m)), axis).mean(axis) for i in range(m)]
        x = np.stack(parts, axis)
    return x


def response_norm(
    x: NDArray,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool = True,
    even: str = "left",
    columns: int = 1,
) -> NDArray:
    """Local response normalisation across channels (axis 1), as in the paper, section 3.3, but over `size` channels."""
    return (
        x
        * response_base(x, size=size, alpha=alpha, k=k, divide_by_size=divide_by_size, even=even, columns=columns)
        ** -beta
    )


def response_base(
    x: NDArray, *, size: int, alpha: float, k: float, divide_by_size: bool, even: str, columns: int
) -> NDArray:
    """The base of the power: k plus the scaled sum of squares."""
    before, after = (size // 2, (size - 1) // 2) if even == "left" else ((size - 1) // 2, size // 2)
    scale = alpha / size if divide_by_size else alpha
    split = x.reshape(x.shape[0], columns, x.shape[1] // columns, *x.shape[2:])
    return k + scale * window_sum(split**2, 2, before, after).reshape(x.shape)


def spatial_norm(x: NDArray, *, size: int, alpha: float, beta: float, k: float, even: str = "left") -> NDArray:
    """Response normalisation over size x size positions of the same map; alpha is divided by size^2."""
    before, after = (size // 2, (size - 1) // 2) if even == "left" else ((size - 1) // 2, size // 2)
    total = window_sum(window_sum(x**2, 2, before, after), 3, before, after)
    return x * (k + alpha / size**2 * total) ** -beta


def window_sum(x: NDArray, axis: int, before: int, after: int) -> NDArray:
    """Sum over [i - before, i + after] along an axis, nothing beyond the ends."""
    edges = [(0, 0)] * x.ndim
    edges[axis] = (before, after)
    return sliding_window_view(np.pad(x, edges), before + after + 1, axis=axis).sum(-1)
