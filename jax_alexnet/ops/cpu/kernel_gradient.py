"""A convolution's gradient for its kernel, on CPUs faster than XLA's own: docs/performance.md says by how much.

Both forms add up products of pixels and gradients, and nothing else, so that a weight that no pixel touched gets 0.
"""

from collections.abc import Callable
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jax_alexnet.ops import blocks
from jax_alexnet.ops.cpu import onednn
from jax_alexnet.ops.cpu.onednn import Edges

# Bytes of the pixels under one place of the window that are multiplied before the next images': a core's cache.
PRODUCT_BYTES = 7e5

# The same for oneDNN's products, which cut theirs themselves.
ONEDNN_PRODUCT_BYTES = 3e6

# Bytes of the gradients that are one convolution's kernel: with more they leave the caches, and it takes twice as long.
CONVOLUTION_BYTES = 8e6

# With fewer images, which are its channels here, oneDNN's bfloat16 convolution on processors with AMX gives other sums
# for some shapes: of 4 images, a gradient of 16x16 maps for a window of 5 came out as far from the right one as it is
# large.
FEWEST_IMAGES = 16


def by_convolution(x: Array, gradient: Array, *, window: int, stride: int, edges: Edges) -> Array:
    """The sums of `by_products` as one convolution by oneDNN: images take the part of channels, channels of images.

    The gradients are its kernel, as large as their maps, with a step of `stride` from weight to weight; where it fits
    into the pixels are the window's places. For the arguments and the result see `by_products`; `x` and `gradient`
    must be of a dtype that `onednn.reason_against` has nothing against, and vary over the same axes of a mesh.
    """
    padding = []
    for (low, _), pixels, positions in zip(edges, x.shape[1:3], gradient.shape[1:3], strict=True):
        padding.append((low, (positions - 1) * stride + window - low - pixels))
    # Pixels that the last position doesn't reach.
    x = x[:, : x.shape[1] + min(0, padding[0][1]), : x.shape[2] + min(0, padding[1][1])]
    (top, bottom), (left, right) = padding
    reached = (top, max(0, bottom)), (left, max(0, right))

    def sums(x: Array, gradient: Array) -> list[Array]:
        x, gradient = (_with_images(array, FEWEST_IMAGES) for array in (x, gradient))
        x, gradient = x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
        return [onednn.convolve(x, gradient, dilation=stride, edges=reached, dtype=jnp.float32)]

    # A power of two: oneDNN takes channels, which the images are here, by such numbers.
    fitting = int(CONVOLUTION_BYTES / (gradient[0].size * gradient.dtype.itemsize))
    (summed,) = blocks.added(max(8, 2 ** (fitting.bit_length() - 1)), sums, x, gradient)
    return summed.transpose(1, 2, 0, 3)


def _with_images(x: Array, count: int) -> Array:
    """At least `count` images in bfloat16, those that were missing of zeros, which add nothing to any sum."""
    missing = count - len(x)
    return x if missing <= 0 or x.dtype != jnp.bfloat16 else jnp.pad(x, [(0, missing), *3 * [(0, 0)]])


def by_onednn_products(x: Array, gradient: Array, *, window: int, stride: int, edges: Edges) -> Array:
    """The sums of `by_products`, for the arguments and the result see there, by oneDNN's products of matrices.

    `x` and `gradient` must be of a dtype that `onednn.reason_against` has nothing against, and vary over the same axes.
    """

    def multiply(gradient: Array, pixels: Array) -> Array:
        return onednn.product(pixels, gradient.reshape(-1, gradient.shape[3]), transpose_a=True).T

    return _by_places(x, gradient, multiply, ONEDNN_PRODUCT_BYTES, window=window, stride=stride, edges=edges)


def by_products(x: Array, gradient: Array, *, window: int, stride: int, edges: Edges) -> Array:
    """What each weight gets: for its place in the window, pixels times gradients, summed over positions and images.

    A stride of s is taken out first: s x s neighbouring pixels become the channels of one, and the window shrinks to
    ceil(window / s) places a side. Sums are accumulated in float32 (float64 for float64).

    Args:
        x: maps (batch, height, width, channels).
        gradient: (batch, height', width', features).
        window: weights along a side of the kernel.
        stride: step in pixels.
        edges: zeros above and below, and left and right, of each map.

    Returns:
        (window, window, channels, features), in float32 or wider.
    """

    def multiply(gradient: Array, pixels: Array) -> Array:
        # Turned over before its pixels are put in a row: XLA would fold the transposition of a matrix into the
        # product, which with pixels first on both sides isn't one of its fast ones, and in bfloat16 would be
        # computed in float32.
        turned = gradient.transpose(3, 0, 1, 2).reshape(gradient.shape[3], -1)
        return jnp.dot(turned, pixels, preferred_element_type=np.promote_types(x.dtype, jnp.float32))

    return _by_places(x, gradient, multiply, PRODUCT_BYTES, window=window, stride=stride, edges=edges)


def _by_places(
    x: Array,
    gradient: Array,
    multiply: Callable[[Array, Array], Array],
    size: float,
    *,
    window: int,
    stride: int,
    edges: Edges,
) -> Array:
    """`multiply` gradients (images, height', width', features) and pixels (positions, inner): (features, inner)."""
    channels, features = x.shape[3], gradient.shape[3]
    height, width = gradient.shape[1:3]
    side = -(-window // stride)
    inner = stride**2 * channels
    needed = [stride * (n + side - 1) for n in (height, width)]
    padding = [(low, n - low - there, 0) for (low, _), n, there in zip(edges, needed, x.shape[1:3], strict=True)]

    cells = _cells(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *padding, (0, 0, 0)]), stride)

    def sums(cells: Array, gradient: Array) -> list[Array]:
        places = []
        for i, j in product(range(side), repeat=2):
            pixels = cells[:, i : i + height, j : j + width].reshape(-1, inner)
            places.append(multiply(gradient, pixels))
        return places

    images = max(1, int(size / (height * width * inner * x.dtype.itemsize)))
    by_place = jnp.stack(blocks.added(images, sums, cells, gradient))
    by_place = by_place.reshape(side, side, features, stride, stride, channels)
    # Rows, columns, channels, features; a row of the window is a row of places and a row within them.
    by_place = by_place.transpose(0, 3, 1, 4, 5, 2).reshape(side * stride, side * stride, channels, features)
    return by_place[:window, :window]


def _cells(x: Array, stride: int) -> Array:
    """(batch, height / s, width / s, s x s x channels): each s x s pixels become one."""
    if stride == 1:
        return x
    images, height, width, channels = x.shape
    x = x.reshape(images, height // stride, stride, width // stride, stride, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(images, height // stride, width // stride, -1)
