"""Max, average and adaptive pooling on NHWC maps, without padding, floor or ceil, with cheap exact gradients."""

from collections.abc import Iterator
from functools import partial, reduce
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_io.errors import UserError
from jax_alexnet.ops.multilinear import everywhere, leave_open
from jax_alexnet.shapes import window_count


def max_pool(x: Array, window: int, stride: int, *, ceil: bool = False) -> Array:
    """Maximum over square windows.

    The gradient goes to the first maximum of each window in row-major order and NaN wins, as in PyTorch. A
    small index per output replaces XLA's select-and-scatter, which is slow on CPUs and refused by
    deterministic GPU programs.

    Args:
        x: maps (batch, height, width, channels).
        window: side of the window in pixels.
        stride: step between windows in pixels.
        ceil: let the last windows overhang at the bottom and right, as Caffe and cuda-convnet do; the
            overhang never counts.

    Returns:
        Maps (batch, 1 + (height-window)/stride, 1 + (width-window)/stride, channels), rounded down or up.

    Raises:
        UserError: the map is smaller than one window.
    """
    geometry = window, stride, ceil
    check(geometry, x)
    return _max_pool(geometry, x)


def check(geometry: tuple[int, int, bool], x: Array) -> None:
    """Refuse a map that is smaller than one window (side, stride, whether windows overhang).

    Raises:
        UserError: naming both sizes.
    """
    _output_size(x.shape, *geometry)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _max_pool(geometry: tuple[int, int, bool], x: Array) -> Array:
    return reduce(jnp.maximum, window_slices(geometry, x, _lowest(x.dtype)))


@_max_pool.defjvp
def _max_pool_tangent(
    geometry: tuple[int, int, bool], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,) = primals
    best, chosen = first_maximum(geometry, window_slices(geometry, x, _lowest(x.dtype)))
    return best, shared_out(geometry, chosen, *tangents)


def first_maximum(geometry: tuple[int, int, bool], slices: Iterator[Array]) -> tuple[Array, Array]:
    """The largest of what lies at each place of the windows, NaN before all, and the number of its place."""
    best = next(slices)
    index_dtype = jnp.uint8 if geometry[0] <= 16 else jnp.int32
    chosen = jnp.zeros(best.shape, index_dtype)
    for index, other in enumerate(slices, start=1):
        better = (other > best) | jnp.isnan(other)
        best = jnp.where(better, other, best)
        chosen = jnp.where(better, index_dtype(index), chosen)
    return best, chosen


def shared_out(geometry: tuple[int, int, bool], chosen: Array, tangent: Array) -> Array:
    """Of a tangent of the maps, what was chosen in each window; the transpose gives each window's back."""
    _, height, width, _ = tangent.shape
    forms = partial(_shares, geometry, (height, width)), partial(_taken, geometry)
    return leave_open(list(map(everywhere, forms)), 1, tangent, given=[chosen])


def _taken(geometry: tuple[int, int, bool], chosen: Array, x: Array) -> Array:
    """Of each window, the pixel whose number in it was chosen."""
    taken, *others = window_slices(geometry, x, 0.0)
    for index, other in enumerate(others, start=1):
        taken = jnp.where(chosen == index, other, taken)
    return taken


def _shares(geometry: tuple[int, int, bool], sides: tuple[int, int], chosen: Array, gradient: Array) -> Array:
    """Each pixel's sum of the gradients of the windows that chose it.

    Pixels at each remainder of the stride are computed together: pixel stride * t + phase is number phase + stride *
    back of window t - back, so that with windows of 3 and a stride of 2 it asks 1, 2 or 4 windows. To spread each
    place's gradient over all pixels and add up would ask 9 for each pixel, which on an H100 took 5 ms more of a step of
    1,024 images, and on CPUs would go by way of memory.
    """
    window, stride, _ = geometry
    steps = -(-window // stride) - 1
    counts = [-(-n // stride) for n in sides]
    edges = [
        (0, 0, 0),
        *((steps, max(0, n - m), 0) for n, m in zip(counts, gradient.shape[1:3], strict=True)),
        (0, 0, 0),
    ]
    gradient = lax.pad(gradient, jnp.zeros((), gradient.dtype), edges)
    chosen = lax.pad(chosen, jnp.zeros((), chosen.dtype), edges)

    def shifted(values: Array, backs: tuple[int, ...]) -> Array:
        starts = [steps - back for back in backs]
        return lax.slice(
            values,
            (0, *starts, 0),
            (values.shape[0], *(start + n for start, n in zip(starts, counts, strict=True)), values.shape[3]),
        )

    def at(phases: tuple[int, int]) -> Array:
        places = [range(phase, window, stride) for phase in phases]
        shares = []
        for place in product(*places):
            backs = tuple(offset // stride for offset in place)
            mine = shifted(chosen, backs) == place[0] * window + place[1]
            shares.append(jnp.where(mine, shifted(gradient, backs), 0))
        return sum(shares[1:], start=shares[0]) if shares else jnp.zeros_like(shifted(gradient, (0, 0)))

    rows = [jnp.stack([at((i, j)) for j in range(stride)], axis=3) for i in range(stride)]
    whole = jnp.stack(rows, axis=2)
    whole = whole.reshape(whole.shape[0], counts[0] * stride, counts[1] * stride, -1)
    return whole[:, : sides[0], : sides[1]]


def average_pool(x: Array, window: int, stride: int, *, ceil: bool = False) -> Array:
    """Mean over square windows; an overhanging window divides by its clipped area (cuda-convnet2's kernel).

    Args:
        x: maps (batch, height, width, channels).
        window: side of the window in pixels.
        stride: step between windows in pixels.
        ceil: let the last windows overhang at the bottom and right.

    Returns:
        Maps of the shape that `max_pool` gives.

    Raises:
        UserError: the map is smaller than one window.
    """
    rows, columns = _output_size(x.shape, window, stride, ceil)
    total = sum(window_slices((window, stride, ceil), x, 0.0))
    heights = [min(window, x.shape[1] - stride * i) for i in range(rows)]
    widths = [min(window, x.shape[2] - stride * i) for i in range(columns)]
    area = np.outer(heights, widths)[None, :, :, None]
    return total / jnp.asarray(area, x.dtype)


def adaptive_average_pool(x: Array, output: tuple[int, int]) -> Array:
    """Average over a grid of `output` windows that cover the map, as PyTorch's AdaptiveAvgPool2d.

    Window i of m over n pixels is [floor(i n / m), ceil((i+1) n / m)): windows overlap where m does not divide
    n, and repeat pixels where m > n. Means over slices, rows first: as products with averaging matrices, whose
    zeros meet every pixel, one infinity would make every mean NaN.

    Args:
        x: maps (batch, height, width, channels).
        output: height and width of the result.

    Returns:
        Maps (batch, *output, channels).
    """
    if x.shape[1:3] == tuple(output):
        return x
    pooled = x.astype(jnp.float32) if x.dtype in (jnp.float16, jnp.bfloat16) else x
    for axis, count in zip((1, 2), output, strict=True):
        pooled = _window_means(pooled, axis, count)
    return pooled.astype(x.dtype)


def _window_means(x: Array, axis: int, count: int) -> Array:
    """Means along `axis` over its `count` adaptive windows, in their place."""
    length = x.shape[axis]
    edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    means = [jnp.mean(lax.slice_in_dim(x, start, stop, axis=axis), axis=axis) for start, stop in edges]
    return jnp.stack(means, axis=axis)


def _output_size(shape: tuple[int, ...], window: int, stride: int, ceil: bool) -> tuple[int, int]:
    height, width = (window_count(n, window, stride, ceil=ceil) for n in shape[1:3])
    if min(height, width) < 1:
        raise UserError(f"a {window}x{window} pooling window doesn't fit into a {shape[1]}x{shape[2]} map")
    return height, width


def _lowest(dtype: jnp.dtype) -> float:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else int(jnp.iinfo(dtype).min)


def window_slices(geometry: tuple[int, int, bool], x: Array, beyond: float) -> Iterator[Array]:
    """For each position in the window, row by row: that pixel of every window."""
    window, stride, ceil = geometry
    rows, columns = _output_size(x.shape, window, stride, ceil)
    reach = [(n - 1) * stride + window for n in (rows, columns)]
    overhang = [max(0, r - n) for r, n in zip(reach, x.shape[1:3], strict=True)]
    if any(overhang):
        edges = ((0, 0, 0), (0, overhang[0], 0), (0, overhang[1], 0), (0, 0, 0))
        x = lax.pad(x, jnp.asarray(beyond, x.dtype), edges)
    for i in range(window):
        for j in range(window):
            yield lax.slice(
                x,
                (0, i, j, 0),
                (x.shape[0], i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, x.shape[3]),
                (1, stride, stride, 1),
            )
