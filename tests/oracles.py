"""Slow, obvious float64 loops: what the operations must compute, whatever computes them.

This module imports nothing of ours and knows no network. Images are NCHW, kernels OIHW, as in the papers'
formulas; callers transpose. Every function takes anything that NumPy reads and returns float64.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Padding = int | tuple[int, int]  # the same on both sides of an axis, or (before, after)


def _float64(x: ArrayLike) -> Array:
    return np.asarray(x, dtype=np.float64)


def _sides(padding: Padding) -> tuple[int, int]:
    return (padding, padding) if isinstance(padding, int) else padding


# --- Response normalisation


def lrn_window(i: int, channels: int, size: int, even: str = "left", columns: int = 1) -> range:
    """Channels whose squares normalise channel i: within its column, an even window one longer to `even`."""
    before = {"left": size // 2, "right": (size - 1) // 2}[even]
    width = channels // columns
    first = i // width * width
    return range(max(i - before, first), min(i - before + size, first + width))


def _lrn_denominators(
    x: Array, size: int, alpha: float, k: float, divide_by_size: bool, even: str, columns: int
) -> Array:
    """k + a * (sum of squares over the window), for (channels, anything)."""
    a = alpha / size if divide_by_size else alpha
    s = np.empty_like(x)
    for i in range(x.shape[0]):
        s[i] = k
        for j in lrn_window(i, x.shape[0], size, even, columns):
            s[i] += a * x[j] ** 2
    return s


def lrn(
    x: ArrayLike,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool = True,
    even: str = "left",
    columns: int = 1,
    axis: int = 1,
) -> Array:
    """Cross-map response normalisation, x_i / (k + a sum x_j^2)^beta, a = alpha or alpha / size."""
    channels_first = np.moveaxis(_float64(x), axis, 0)
    s = _lrn_denominators(channels_first, size, alpha, k, divide_by_size, even, columns)
    return np.moveaxis(channels_first / s**beta, 0, axis)


def lrn_gradient(
    x: ArrayLike,
    g: ArrayLike,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool = True,
    even: str = "left",
    columns: int = 1,
    axis: int = 1,
    magnitudes: bool = False,
) -> Array:
    """Gradient of sum(g * lrn(x)) in x, from the formula's derivative.

    With s_i the denominators before the power, dy_i/dx_j = [i = j] s_i^-beta
    - 2 a beta x_i x_j s_i^(-beta - 1) [j in window of i].
    `magnitudes` adds the terms' sizes instead: what rounding errors of the true gradient scale with.
    """
    xs, gs = (np.moveaxis(_float64(v), axis, 0) for v in (x, g))
    s = _lrn_denominators(xs, size, alpha, k, divide_by_size, even, columns)
    a = alpha / size if divide_by_size else alpha
    sign = 1.0 if magnitudes else -1.0
    if magnitudes:
        xs, gs = np.abs(xs), np.abs(gs)
    dx = gs * s**-beta
    for i in range(xs.shape[0]):
        for j in lrn_window(i, xs.shape[0], size, even, columns):
            dx[j] += sign * 2 * a * beta * gs[i] * xs[i] * xs[j] * s[i] ** (-beta - 1)
    return np.moveaxis(dx, 0, axis)


def spatial_response_norm(x: ArrayLike, *, size: int, alpha: float, beta: float, k: float) -> Array:
    """Same-map response normalisation over size x size pixels of one map, alpha divided by size^2."""
    x = _float64(x)
    y = np.empty_like(x)
    height, width = x.shape[-2:]
    for row, column in itertools.product(range(height), range(width)):
        top, left = max(row - size // 2, 0), max(column - size // 2, 0)
        bottom, right = row - size // 2 + size, column - size // 2 + size
        squares = np.sum(x[..., top:bottom, left:right] ** 2, axis=(-2, -1))
        y[..., row, column] = x[..., row, column] / (k + alpha / size**2 * squares) ** beta
    return y


# --- Pooling


def pool_size(n: int, window: int, stride: int, padding: Padding = 0, ceil: bool = False) -> int:
    """Number of windows along an axis; with `ceil` a last, clipped one, unless it would start in padding."""
    before, after = _sides(padding)
    steps = (n + before + after - window) / stride
    count = 1 + (math.ceil(steps) if ceil else math.floor(steps))
    if ceil and (count - 1) * stride >= n + before:
        count -= 1
    return count


def _windows(shape: tuple[int, ...], window: int, stride: int, padding: Padding, ceil: bool):
    """(output row, output column, rows, columns) of every window, clipped to the image."""
    before = _sides(padding)[0]
    rows, columns = (
        [
            slice(max(i * stride - before, 0), min(i * stride - before + window, n))
            for i in range(pool_size(n, window, stride, padding, ceil))
        ]
        for n in shape[-2:]
    )
    for (i, r), (j, c) in itertools.product(enumerate(rows), enumerate(columns)):
        yield i, j, r, c


def _pooled(x: Array, window: int, stride: int, padding: Padding, ceil: bool) -> Array:
    return np.empty((*x.shape[:-2], *(pool_size(n, window, stride, padding, ceil) for n in x.shape[-2:])))


def max_pool(x: ArrayLike, window: int, stride: int, padding: Padding = 0, ceil: bool = False) -> Array:
    """Largest value of each window; padding is minus infinity, that is, never looked at."""
    x = _float64(x)
    y = _pooled(x, window, stride, padding, ceil)
    for i, j, rows, columns in _windows(x.shape, window, stride, padding, ceil):
        y[..., i, j] = x[..., rows, columns].max(axis=(-2, -1))
    return y


def max_pool_gradient(
    x: ArrayLike, g: ArrayLike, window: int, stride: int, padding: Padding = 0, ceil: bool = False
) -> Array:
    """Gradient of sum(g * max_pool(x)) in x: each window's goes to its first maximum, row by row."""
    x, g = _float64(x), _float64(g)
    dx = np.zeros_like(x)
    for image in np.ndindex(x.shape[:-2]):
        for i, j, rows, columns in _windows(x.shape, window, stride, padding, ceil):
            values = x[image][rows, columns]
            row, column = np.unravel_index(np.argmax(values), values.shape)  # argmax takes the first
            dx[(*image, rows.start + row, columns.start + column)] += g[(*image, i, j)]
    return dx


def avg_pool(
    x: ArrayLike,
    window: int,
    stride: int,
    padding: Padding = 0,
    ceil: bool = False,
    count_padding: bool = False,
) -> Array:
    """Mean of each window, divided by its clipped area; `count_padding` counts zeros of explicit padding."""
    x = _float64(x)
    if count_padding:
        x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [_sides(padding)] * 2)
        padding = 0
    y = _pooled(x, window, stride, padding, ceil)
    for i, j, rows, columns in _windows(x.shape, window, stride, padding, ceil):
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        y[..., i, j] = x[..., rows, columns].sum(axis=(-2, -1)) / area
    return y


def adaptive_bins(n: int, bins: int) -> list[range]:
    """Bin i of an axis of n: from floor(i n / bins) up to, not including, ceil((i + 1) n / bins)."""
    return [range(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)]


def adaptive_avg_pool(x: ArrayLike, size: tuple[int, int]) -> Array:
    """Mean of each of size[0] x size[1] bins, which overlap where sizes don't divide."""
    x = _float64(x)
    y = np.empty((*x.shape[:-2], *size))
    for i, rows in enumerate(adaptive_bins(x.shape[-2], size[0])):
        for j, columns in enumerate(adaptive_bins(x.shape[-1], size[1])):
            pixels = x[..., rows.start : rows.stop, columns.start : columns.stop]
            y[..., i, j] = pixels.sum(axis=(-2, -1)) / (len(rows) * len(columns))
    return y


# --- Convolution (cross-correlation, as in every framework)


def _padded(x: Array, window: int, stride: int, padding: Padding, ceil: bool) -> Array:
    """Zeros around; with `ceil` as many more below and on the right as the last window reaches over."""
    before, after = _sides(padding)
    pads = []
    for n in x.shape[-2:]:
        steps = (n + before + after - window) / stride
        count = 1 + (math.ceil(steps) if ceil else math.floor(steps))
        pads.append((before, max(after, (count - 1) * stride + window - n - before)))
    return np.pad(x, [(0, 0), (0, 0), *pads])


def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    ceil: bool = False,
) -> Array:
    """Grouped convolution of (N, C, H, W) with (O, C / groups, size, size), window by window."""
    kernel = _float64(kernel)
    outputs, inputs, size, _ = kernel.shape
    x = _padded(_float64(x), size, stride, padding, ceil)
    height, width = ((n - size) // stride + 1 for n in x.shape[-2:])
    y = np.zeros((x.shape[0], outputs, height, width))
    for group, i, j in np.ndindex(groups, height, width):
        rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
        patch = x[:, group * inputs : (group + 1) * inputs, rows, columns]
        own = slice(group * outputs // groups, (group + 1) * outputs // groups)
        y[:, own, i, j] = np.tensordot(patch, kernel[own], axes=([1, 2, 3], [1, 2, 3]))
    return y if bias is None else y + _float64(bias)[:, None, None]


def local_conv(
    x: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None, *, stride: int = 1, padding: Padding = 0
) -> Array:
    """Unshared convolution: kernel (Hout, Wout, O, C, size, size) and bias (Hout, Wout, O) by position."""
    kernel = _float64(kernel)
    height, width, outputs, _, size, _ = kernel.shape
    x = _padded(_float64(x), size, stride, padding, ceil=False)
    y = np.zeros((x.shape[0], outputs, height, width))
    for i, j in np.ndindex(height, width):
        patch = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
        y[:, :, i, j] = np.tensordot(patch, kernel[i, j], axes=([1, 2, 3], [1, 2, 3]))
        if bias is not None:
            y[:, :, i, j] += _float64(bias)[i, j]
    return y


# --- Gradients


def finite_differences(f: Callable[[Array], ArrayLike], x: ArrayLike, g: ArrayLike, step: float = 1e-5) -> Array:
    """Gradient of sum(g * f(x)) in x by central differences; error about step^2 times the third derivative."""
    x, g = _float64(x).copy(), _float64(g)
    dx = np.empty_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        h = step * max(1.0, abs(value))
        x[index] = value + h
        above = _float64(f(x))
        x[index] = value - h
        below = _float64(f(x))
        x[index] = value
        dx[index] = np.sum(g * (above - below)) / (2 * h)
    return dx
