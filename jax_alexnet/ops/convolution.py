"""Convolutions on NHWC maps: grouped, with cuda-convnet's implied zeros, and with unshared kernels."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jax_alexnet.ops.cpu import kernel_gradient, minimal_filters, onednn, winograd
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.ops.multilinear import Form, leave_open
from jax_alexnet.shapes import window_count

# Columns of the products for kernels' gradients: with fewer, such as the 3 of images, XLA's convolution is faster.
LEAST_COLUMNS = 32

# Terms of a float32 sum that oneDNN may add up: it adds in sequence, which PyTorch's newer one doesn't with more, and
# rounding errors would be three times PyTorch's (1,728 terms). In gradients the order is free.
MOST_TERMS = 1200


def conv(
    x: Array, kernel: Array, *, stride: int, padding: int, groups: int, ceil: bool = False, cpu: CpuForm = "auto"
) -> Array:
    """Cross-correlation of maps with shared kernels.

    Args:
        x: maps (batch, height, width, channels).
        kernel: (window, window, channels / groups, features).
        stride: step in pixels.
        padding: zeros on all four sides.
        groups: consecutive channels and features that see only each other.
        ceil: 1 + ceil((n + 2p - k) / s) positions a side, as cuda-convnet: zeros follow at the bottom and right.
        cpu: who computes it on CPUs. auto is the fastest of those that fit; onednn and winograd where they fit, and
            xla otherwise. See `_form`.

    Returns:
        Maps (batch, height', width', features) in the dtype of `x`.
    """
    _, height, width, _ = x.shape
    window, edges = kernel.shape[0], []
    for n in (height, width):
        reach = (window_count(n, window, stride, padding, ceil) - 1) * stride + window
        edges.append((padding, max(padding, reach - n - padding) if ceil else padding))
    return leave_open(_forms(_Geometry(window, stride, tuple(edges), groups, cpu), (height, width)), 2, x, kernel)


class _Geometry(NamedTuple):
    """The kernel's side, its step in pixels, zeros on each side, groups, who is asked on CPUs, whether a gradient."""

    window: int
    stride: int
    edges: winograd.Edges
    groups: int
    cpu: CpuForm
    gradient: bool = False

    @property
    def alone(self) -> "_Geometry":
        """Of one of the groups."""
        return self._replace(groups=1)

    @property
    def backward(self) -> "_Geometry | None":
        """Of the convolution that makes the maps' gradient from the maps' after it; None if there is no such."""
        (top, bottom), (left, right) = self.edges
        reach = self.window - 1
        edges = (reach - top, reach - bottom), (reach - left, reach - right)
        return self._replace(edges=edges, gradient=True) if self.stride == 1 and min(map(min, edges)) >= 0 else None


def _forms(geometry: _Geometry, sides: tuple[int, int]) -> tuple[Form, ...]:
    """By place: maps, kernels, and the maps after them. On GPUs XLA's: CuDNN, which chooses among its own algorithms.

    Args:
        geometry: see `_Geometry`.
        sides: height and width of the maps.
    """
    return (
        Form(partial(_maps_on_cpus, geometry, sides), partial(_maps_by_xla, geometry, sides)),
        Form(partial(_kernels_on_cpus, geometry), partial(_kernels_by_xla, geometry)),
        Form(partial(_on_cpus, geometry), partial(_xla, geometry)),
    )


def _xla(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (geometry.stride, geometry.stride), geometry.edges, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )  # fmt: skip


def _maps_by_xla(geometry: _Geometry, sides: tuple[int, int], kernel: Array, gradient: Array) -> Array:
    channels = kernel.shape[2] * geometry.groups
    maps = jax.typeof(gradient).update(shape=(gradient.shape[0], *sides, channels))
    return jax.linear_transpose(lambda x: _xla(geometry, x, kernel), maps)(gradient)[0]


def _kernels_by_xla(geometry: _Geometry, x: Array, gradient: Array) -> Array:
    shape = geometry.window, geometry.window, x.shape[3] // geometry.groups, gradient.shape[3]
    kernels = jax.typeof(x).update(shape=shape)
    return jax.linear_transpose(lambda kernel: _xla(geometry, x, kernel), kernels)(gradient)[0]


def _on_cpus(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    match _form(geometry, x, kernel.shape[3]):
        case "onednn":
            return onednn.convolve(x, kernel, stride=geometry.stride, edges=geometry.edges, groups=geometry.groups)
        case "winograd":
            return _by_groups(geometry, partial(winograd.convolve, edges=geometry.edges), x, kernel)
    return _by_groups(geometry, partial(_xla, geometry.alone), x, kernel)


# Both by XLA one group at a time: its grouped convolution leaves its fast path in the backward pass (12 times slower).


def _maps_on_cpus(geometry: _Geometry, sides: tuple[int, int], kernel: Array, gradient: Array) -> Array:
    back = geometry.backward
    if back is None or not _chosen(geometry, gradient):
        return _by_groups(geometry, partial(_maps_by_xla, geometry.alone, sides), kernel, gradient)
    turned = jnp.concatenate([part.swapaxes(2, 3) for (part,) in _split(geometry, kernel[::-1, ::-1])], axis=-1)
    return _on_cpus(back, gradient, turned)


def _kernels_on_cpus(geometry: _Geometry, x: Array, gradient: Array) -> Array:
    place = {"window": geometry.window, "stride": geometry.stride, "edges": geometry.edges}
    if _chosen(geometry, x):
        if onednn.usable(x.dtype, geometry.cpu):
            by_convolution = partial(kernel_gradient.by_convolution, **place)
            return _by_groups(geometry, by_convolution, x, gradient).astype(x.dtype)
        if geometry.stride**2 * x.shape[3] // geometry.groups >= LEAST_COLUMNS:
            by_products = partial(kernel_gradient.by_products, **place)
            return _by_groups(geometry, by_products, x, gradient).astype(x.dtype)
    return _by_groups(geometry, partial(_kernels_by_xla, geometry.alone), x, gradient)


def _chosen(geometry: _Geometry, x: Array) -> bool:
    """Whether anything but XLA's convolutions may compute it. float64 is there to be exact: its sums stay plain."""
    return geometry.cpu != "xla" and x.dtype in (jnp.float32, jnp.bfloat16)


def _form(geometry: _Geometry, x: Array, features: int) -> CpuForm:
    """Who computes a convolution on CPUs.

    In float32 Winograd's filters are the fastest where they spare enough; else, and in bfloat16, for which oneDNN uses
    the processor's own products, oneDNN. docs/performance.md has the measurements.
    """
    if not _chosen(geometry, x):
        return "xla"
    terms = geometry.window**2 * x.shape[3] // geometry.groups
    many = x.dtype == jnp.float32 and terms > MOST_TERMS and not geometry.gradient
    onednn_fits = onednn.usable(x.dtype, geometry.cpu) and not (many and geometry.cpu == "auto")
    winograd_fits = geometry.cpu != "onednn" and _spares_enough(geometry, x, features)
    # oneDNN takes groups as they lie; for the filters they would be cut apart and joined.
    if winograd_fits and (not onednn_fits or (x.dtype == jnp.float32 and geometry.groups == 1)):
        return "winograd"
    return "onednn" if onednn_fits else "xla"


def _spares_enough(geometry: _Geometry, x: Array, features: int) -> bool:
    """Whether Winograd's filters gain: a window that they have, enough products, and two of five spared.

    With fewer than 4 images making the kernels' tiles costs more than the products save; with few channels making
    the maps' does. Tiles that reach over small maps' edges spare little.
    """
    if geometry.stride != 1 or geometry.window not in minimal_filters.WINDOWS:
        return False
    enough = len(x) >= 4 and min(x.shape[3], features) // geometry.groups >= 96
    return enough and winograd.spared(geometry.window, geometry.edges, (x.shape[1], x.shape[2])) >= 0.4


def _split(geometry: _Geometry, *arrays: Array) -> list[tuple[Array, ...]]:
    """By group, its part of each array's last axis."""
    return list(zip(*(jnp.split(array, geometry.groups, axis=-1) for array in arrays), strict=True))


def _by_groups(geometry: _Geometry, function: Callable[..., Array], *arrays: Array) -> Array:
    return jnp.concatenate([function(*part) for part in _split(geometry, *arrays)], axis=-1)


def local_conv(x: Array, kernel: Array, *, padding: int) -> Array:
    """Convolution with stride 1 whose kernels differ from position to position (cuda-convnet's `local`).

    Args:
        x: maps (batch, height, width, channels).
        kernel: (height', width', window, window, channels, features), one kernel for each output position.
        padding: zeros on all four sides.

    Returns:
        Maps (batch, height', width', features).
    """
    height, width, window, _, channels, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    pixels = [padded[:, i : i + height, j : j + width] for i in range(window) for j in range(window)]
    patches = jnp.concatenate(pixels, axis=-1)
    flat = kernel.reshape(height, width, window * window * channels, features)
    return leave_open(_PATCHES_BY_KERNELS, 2, patches, flat)


def _summed(subscripts: str, x: Array, y: Array) -> Array:
    return jnp.einsum(subscripts, x, y)


def _summed_in_float32(subscripts: str, x: Array, y: Array) -> Array:
    """Of bfloat16, some versions of XLA would round each partial sum on CPUs, too."""
    wide = np.promote_types(x.dtype, np.float32)
    return jnp.einsum(subscripts, x.astype(wide), y.astype(wide)).astype(x.dtype)


# Patches (n, h, w, k), kernels (h, w, k, f) and maps (n, h, w, f), each from the other two.
_PATCHES_BY_KERNELS = tuple(
    Form(partial(_summed_in_float32, subscripts), partial(_summed, subscripts))
    for subscripts in ("hwkf,nhwf->nhwk", "nhwk,nhwf->hwkf", "nhwk,hwkf->nhwf")
)
