"""Convolutions on NHWC maps: grouped, with cuda-convnet's implied zeros, and with unshared kernels."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.ops import minimal_filters, winograd
from jax_alexnet.shapes import window_count


def conv(
    x: Array, kernel: Array, *, stride: int, padding: int, groups: int, ceil: bool = False, fast: bool = True
) -> Array:
    """Cross-correlation of maps with shared kernels.

    Args:
        x: maps (batch, height, width, channels).
        kernel: (window, window, channels / groups, features).
        stride: step in pixels.
        padding: zeros on all four sides.
        groups: consecutive channels and features that see only each other.
        ceil: 1 + ceil((n + 2p - k) / s) positions a side, as cuda-convnet: zeros follow at the bottom and right.
        fast: allow `winograd` on CPUs where it saves time.

    Returns:
        Maps (batch, height', width', features) in the dtype of `x`.
    """
    window = kernel.shape[0]
    edges = []
    for n in x.shape[1:3]:
        reach = (window_count(n, window, stride, padding, ceil) - 1) * stride + window
        edges.append((padding, max(padding, reach - n - padding) if ceil else padding))

    fast = fast and stride == 1 and _worth_it(x, kernel)
    if groups == 1 and not fast:
        return _direct(x, kernel, stride, tuple(edges), 1)
    return _by_platform(_Geometry(stride, tuple(edges), groups, fast), x, kernel)


class _Geometry(NamedTuple):
    """Stride, zeros on each side, groups, and whether Winograd's filtering may be used."""

    stride: int
    edges: winograd.Edges
    groups: int
    fast: bool


def _worth_it(x: Array, kernel: Array) -> bool:
    """Whether Winograd's filtering gains on CPUs: a window it has, float32 or less, and enough to do.

    With fewer than 4 images making the kernels' tiles costs more than the products save; with few channels making
    the maps' does. float64 is there to be exact, so it keeps the direct sum.
    """
    window, _, channels, features = kernel.shape
    enough = len(x) >= 4 and min(channels, features) >= 32 and min(x.shape[1:3]) >= window
    return enough and x.dtype in (jnp.float32, jnp.bfloat16) and window in minimal_filters.WINDOWS


def _direct(x: Array, kernel: Array, stride: int, edges: winograd.Edges, groups: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), edges, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def _one_by_one(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    groups = geometry.groups
    outputs = []
    for part in zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True):
        if geometry.fast:
            outputs.append(winograd.convolve(*part, geometry.edges))
        else:
            outputs.append(_direct(*part, geometry.stride, geometry.edges, 1))
    return jnp.concatenate(outputs, axis=-1) if groups > 1 else outputs[0]


def _together(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    return _direct(x, kernel, geometry.stride, geometry.edges, geometry.groups)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_platform(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    """Groups one by one on CPUs and by Winograd's filtering where that is faster; together and directly on GPUs.

    On CPUs XLA's grouped convolution leaves the fast path in the backward pass (12 times slower). On GPUs cuDNN has
    them, and its own choice of algorithms; cutting maps apart and joining them would be a tenth of the bytes that a
    step of `two_column` moves.
    """
    return lax.platform_dependent(x, kernel, cuda=partial(_together, geometry), default=partial(_one_by_one, geometry))


def _forward(geometry: _Geometry, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_platform(geometry, x, kernel), (x, kernel)


def _backward(geometry: _Geometry, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def backward(form: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        return lambda x, kernel, gradient: jax.vjp(partial(form, geometry), x, kernel)[1](gradient)

    return lax.platform_dependent(*kept, gradient, cuda=backward(_together), default=backward(_one_by_one))


_by_platform.defvjp(_forward, _backward)


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
    return jnp.einsum("nhwk,hwkf->nhwf", patches, flat)
