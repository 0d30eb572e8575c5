"""Winograd's minimal filtering: convolutions of stride 1 with fewer multiplications, as matrix products.

Winograd, "Arithmetic Complexity of Computations" (1980); for convolutional networks Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks" (2015), sections 4 and 5. A tile of 2x2 outputs y needs the tile d of the input
under it, `size` = window + 1 pixels a side:

    y = A' [(G g G') . (B' d B)] A

where g is the kernel and . multiplies element by element: size^2 products instead of 4 window^2, 16 for 36 with a
window of 3 and 36 for 100 with one of 5. Each of the size^2 places is one matrix product of all tiles' channels with
the kernel's (channels, features).

The maps' gradient is a convolution too. The kernel's isn't done this way: with filtering, a weight that no pixel
touched would get a rounding error instead of zero, which Adam would make a step of full size.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jax_alexnet.ops import blocks
from jax_alexnet.ops.cpu.minimal_filters import OUTPUTS, Matrix, filtering

# Bytes of the tiles that are made, multiplied and put together before the next images': memory doesn't grow with the
# batch, and what one product writes is near when the next step reads it.
BLOCK_BYTES = 40e6

Edges = tuple[tuple[int, int], tuple[int, int]]


class _Tiling(NamedTuple):
    """How a map is cut into tiles: the window, the zeros around the map, and the map's sides in pixels."""

    window: int
    edges: Edges
    sides: tuple[int, int]

    @property
    def size(self) -> int:
        return self.window + OUTPUTS - 1

    def outputs(self, axis: int) -> int:
        return self.sides[axis] + sum(self.edges[axis]) - self.window + 1

    def count(self, axis: int) -> int:
        return -(-self.outputs(axis) // OUTPUTS)

    def block(self, channels: int) -> int:
        """Images whose tiles of so many channels, in and out together, fit into `BLOCK_BYTES` of float32."""
        bytes_an_image = self.count(0) * self.count(1) * self.size**2 * channels * 4
        return max(1, int(BLOCK_BYTES / bytes_an_image))

    def along(self, values: Array, axis: int, first: int) -> Array:
        """Pixel `first` of every tile along height (0) or width (1)."""
        last = first + OUTPUTS * (self.count(axis) - 1)
        return lax.slice_in_dim(values, first, last + 1, OUTPUTS, axis=axis + 1)


def convolve(x: Array, kernel: Array, edges: Edges) -> Array:
    """Cross-correlation with stride 1.

    Sums are accumulated in float32. Unlike in a direct sum an output's rounding error depends on its whole tile; but
    a window of zeros gives zero, so that what follows sees the same ties as after a direct sum.

    Args:
        x: maps (batch, height, width, channels).
        kernel: (window, window, channels, features), the window one of `WINDOWS`.
        edges: zeros above and below, and left and right, of each map.

    Returns:
        Maps (batch, height', width', features) in the dtype of `x`.
    """
    height, width = x.shape[1:3]
    tiling = _Tiling(kernel.shape[0], edges, (height, width))
    kernels = _kernels(tiling, kernel)

    def block(x: Array) -> Array:
        products = [_dot(a, b) for a, b in zip(_inputs(tiling, x), kernels, strict=True)]
        outputs = _outputs(tiling, products, len(x))
        return jnp.where(_touched(x, tiling.window, tiling.edges), outputs, 0).astype(x.dtype)

    return blocks.mapped(tiling.block(sum(kernel.shape[2:])), block, x)


def spared(window: int, edges: Edges, sides: tuple[int, int]) -> float:
    """Share of a direct sum's products that maps of these sides don't need; negative where tiles need more."""
    tiling = _Tiling(window, edges, sides)
    tiles = prod(tiling.count(axis) * tiling.size for axis in (0, 1))
    return 1 - tiles / prod(tiling.outputs(axis) * window for axis in (0, 1))


def _touched(values: Array, window: int, edges: Edges) -> Array:
    """Whether any value in any channel under each window isn't zero, (batch, height', width', 1)."""
    there = jnp.any(values != 0, axis=-1, keepdims=True)
    padding = ((0, 0), *edges, (0, 0))
    return lax.reduce_window(there, False, lax.bitwise_or, (1, window, window, 1), (1, 1, 1, 1), padding)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _combine(matrix: Matrix, values: Sequence[Array]) -> list[Array]:
    """By row of the matrix, the sum of the arrays with its weights."""
    combined = []
    for row in matrix:
        terms = [_times(weight, value) for weight, value in zip(row, values, strict=True) if weight]
        combined.append(sum(terms[1:], start=terms[0]))
    return combined


def _times(weight: Fraction, value: Array) -> Array:
    if abs(weight) == 1:
        return value if weight > 0 else -value
    return value * jnp.asarray(float(weight), value.dtype)


def _square(matrix: Matrix, values: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """M V M' of a square V of arrays."""
    rows = [_combine(matrix, row) for row in values]
    return [list(row) for row in zip(*(_combine(matrix, column) for column in zip(*rows, strict=True)), strict=True)]


def _places(tiling: _Tiling, flat: Sequence[Array], images: int) -> list[list[Array]]:
    """Products by place, (images x down x across, channels), as a square of maps of tiles."""
    flat = [a.reshape(images, tiling.count(0), tiling.count(1), -1) for a in flat]
    return [list(flat[i : i + tiling.size]) for i in range(0, len(flat), tiling.size)]


def _wide(x: Array) -> Array:
    return x.astype(np.promote_types(x.dtype, np.float32))


def _inputs(tiling: _Tiling, x: Array) -> list[Array]:
    """B' d B of all tiles: by place (images x down x across, channels)."""
    ends = [OUTPUTS * (tiling.count(axis) - 1) + tiling.size for axis in (0, 1)]
    padding = [
        (edge[0], end - edge[0] - side, 0) for edge, end, side in zip(tiling.edges, ends, tiling.sides, strict=True)
    ]
    maps = _wide(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *padding, (0, 0, 0)]))
    matrix, pixels = filtering(tiling.window).inputs, range(tiling.size)
    rows = _combine(matrix, [tiling.along(maps, 0, i) for i in pixels])
    return [
        value.reshape(-1, maps.shape[-1])
        for row in rows
        for value in _combine(matrix, [tiling.along(row, 1, j) for j in pixels])
    ]


def _interleaved(phases: Sequence[Array], axis: int) -> Array:
    shape = list(phases[0].shape)
    shape[axis + 1] *= len(phases)
    return jnp.stack(phases, axis=axis + 2).reshape(shape)


def _kernels(tiling: _Tiling, kernel: Array) -> list[Array]:
    """G g G': by place (channels, features)."""
    matrix, sides = filtering(tiling.window).kernel, range(tiling.window)
    wide = _wide(kernel)
    rows = _combine(matrix, [wide[i] for i in sides])
    return [place for row in rows for place in _combine(matrix, [row[j] for j in sides])]


def _outputs(tiling: _Tiling, places: Sequence[Array], images: int) -> Array:
    """A' m A of all tiles, put side by side."""
    square = _square(filtering(tiling.window).outputs, _places(tiling, places, images))
    rows = [_interleaved(row, 1) for row in square]
    return _interleaved(rows, 0)[:, : tiling.outputs(0), : tiling.outputs(1)]
