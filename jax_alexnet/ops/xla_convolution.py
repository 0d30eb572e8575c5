"""Convolutions by XLA, on GPUs in the form for which cuDNN has fast kernels, and their gradients.

Measured on an H100 in bfloat16 with 1,024 images (docs/performance.md): for the 3 channels of an image cuDNN has
kernels of an older generation only, which pad them to 8 and take 16 times as long as the bytes and the arithmetic; and
with groups some convolutions meet a kernel that takes 45 times as long. Without groups, and with an image's pixels
gathered so that there are 48 channels, all meet the kernels that other layers meet.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.ops.cpu.onednn import CpuForm, Edges

# Fewer channels a group are an image's.
FEW_CHANNELS = 16


class Geometry(NamedTuple):
    """The kernel's side, its step in pixels, zeros on each side, groups, who is asked on CPUs, whether a gradient."""

    window: int
    stride: int
    edges: Edges
    groups: int
    cpu: CpuForm
    gradient: bool = False

    @property
    def alone(self) -> "Geometry":
        """Of one of the groups."""
        return self._replace(groups=1)

    @property
    def backward(self) -> "Geometry | None":
        """Of the convolution that makes the maps' gradient from the maps' after it; None if there is no such."""
        (top, bottom), (left, right) = self.edges
        reach = self.window - 1
        edges = (reach - top, reach - bottom), (reach - left, reach - right)
        return self._replace(edges=edges, gradient=True) if self.stride == 1 and min(map(min, edges)) >= 0 else None


def convolve(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """Maps (batch, height', width', features) of maps (batch, height, width, channels) and a kernel."""
    return _by_platform(geometry, plain, _for_cudnn, x, kernel)


def maps(geometry: Geometry, sides: tuple[int, int], kernel: Array, gradient: Array) -> Array:
    """The gradient of maps of such height and width, from the kernel and the gradient of the maps after them."""
    for_cudnn = partial(_maps_of, _for_cudnn, sides=sides)
    return _by_platform(geometry, partial(_maps_of, plain, sides=sides), for_cudnn, kernel, gradient)


def kernels(geometry: Geometry, x: Array, gradient: Array) -> Array:
    """The gradient of the kernel, from the maps and the gradient of those after them."""
    return _by_platform(geometry, plain_kernels, partial(_kernels_of, _for_cudnn), x, gradient)


def plain(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """`convolve` in the obvious form."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (geometry.stride, geometry.stride),
        geometry.edges,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def plain_maps(geometry: Geometry, sides: tuple[int, int], kernel: Array, gradient: Array) -> Array:
    """`maps` in the obvious form."""
    return _maps_of(plain, geometry, kernel, gradient, sides=sides)


def plain_kernels(geometry: Geometry, x: Array, gradient: Array) -> Array:
    """`kernels` in the obvious form."""
    return _kernels_of(plain, geometry, x, gradient)


_Convolution = Callable[[Geometry, Array, Array], Array]


def _by_platform(
    geometry: Geometry, form: Callable[..., Array], on_gpus: Callable[..., Array], *arrays: Array
) -> Array:
    if geometry.groups == 1 and geometry.stride == 1:
        return form(geometry, *arrays)
    return lax.platform_dependent(*arrays, cuda=partial(on_gpus, geometry), default=partial(form, geometry))


def _maps_of(
    convolution: _Convolution, geometry: Geometry, kernel: Array, gradient: Array, *, sides: tuple[int, int]
) -> Array:
    channels = kernel.shape[2] * geometry.groups
    shape = jax.typeof(gradient).update(shape=(gradient.shape[0], *sides, channels))
    return jax.linear_transpose(lambda x: convolution(geometry, x, kernel), shape)(gradient)[0]


def _kernels_of(convolution: _Convolution, geometry: Geometry, x: Array, gradient: Array) -> Array:
    shape = geometry.window, geometry.window, x.shape[3] // geometry.groups, gradient.shape[3]
    kernel = jax.typeof(x).update(shape=shape)
    return jax.linear_transpose(lambda kernel: convolution(geometry, x, kernel), kernel)(gradient)[0]


def _for_cudnn(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """Without groups, and images by blocks.

    In 16 bits two groups become one convolution, whose kernel has zeros where the groups don't see each other: twice
    the arithmetic takes no longer than cutting the maps apart and joining them, which moves a fifth more bytes a step.
    Wider numbers are multiplied more slowly, and more groups would be mostly zeros.
    """
    one = partial(_by_blocks if geometry.stride > 1 and kernel.shape[2] < FEW_CHANNELS else plain, geometry.alone)
    if geometry.groups == 1:
        return one(x, kernel)
    kernels = jnp.split(kernel, geometry.groups, axis=-1)
    if geometry.groups == 2 and x.dtype.itemsize == 2:
        return one(x, jnp.concatenate([_among_all(i, *kernels) for i in range(geometry.groups)], axis=-1))
    # Behind the barriers only maps are cut apart and joined, and not all that comes before or after them.
    parts = zip(jnp.split(lax.optimization_barrier(x), geometry.groups, axis=-1), kernels, strict=True)
    return lax.optimization_barrier(jnp.concatenate([one(*part) for part in parts], axis=-1))


def _among_all(group: int, *kernels: Array) -> Array:
    """One group's kernel, with zeros for the channels of the others."""
    own = kernels[group]
    zeros = jnp.zeros_like(own)
    return jnp.concatenate([own if i == group else zeros for i in range(len(kernels))], axis=2)


def _by_blocks(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """Of blocks of stride x stride pixels (space to depth): stride^2 times the channels, and a step of 1.

    A window that ends within a block has zeros there. They meet pixels beyond the window: what is infinite or not a
    number there becomes not a number here, too.
    """
    stride, features = geometry.stride, kernel.shape[3]
    blocks = -(-geometry.window // stride)
    sides = list(zip(x.shape[1:3], geometry.edges, strict=True))
    counts = [(n + sum(edge) - geometry.window) // stride + blocks for n, edge in sides]
    # Whole blocks, as many as windows reach; the last row may be missing or left over.
    edges = [(edge[0], count * stride - n - edge[0], 0) for (n, edge), count in zip(sides, counts, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    x = x.reshape(x.shape[0], counts[0], stride, counts[1], stride, x.shape[3])
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], *counts, -1)
    kernel = jnp.pad(kernel, (*[(0, blocks * stride - geometry.window)] * 2, (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, *kernel.shape[2:])
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, -1, features)
    return plain(Geometry(blocks, 1, ((0, 0), (0, 0)), 1, geometry.cpu), x, kernel)
