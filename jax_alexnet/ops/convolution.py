"""Convolutions on NHWC maps: grouped, with cuda-convnet's implied zeros, and with unshared kernels."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.shapes import window_count


def conv(x: Array, kernel: Array, *, stride: int, padding: int, groups: int, ceil: bool = False) -> Array:
    """Cross-correlation of maps with shared kernels.

    Args:
        x: maps (batch, height, width, channels).
        kernel: (window, window, channels / groups, features).
        stride: step in pixels.
        padding: zeros on all four sides.
        groups: consecutive channels and features that see only each other.
        ceil: 1 + ceil((n + 2p - k) / s) positions a side, as cuda-convnet: zeros follow at the bottom and right.

    Returns:
        Maps (batch, height', width', features) in the dtype of `x`.
    """
    window = kernel.shape[0]
    edges = []
    for n in x.shape[1:3]:
        reach = (window_count(n, window, stride, padding, ceil) - 1) * stride + window
        edges.append((padding, max(padding, reach - n - padding) if ceil else padding))

    if groups == 1:
        return _convolve(x, kernel, stride, edges, 1)
    return _grouped((stride, tuple(edges), groups), x, kernel)


def _convolve(x: Array, kernel: Array, stride: int, edges: Sequence[tuple[int, int]], groups: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), edges, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


# stride, zeros on each side, groups
_Geometry = tuple[int, tuple[tuple[int, int], ...], int]


def _one_by_one(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    stride, edges, groups = geometry
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([_convolve(*part, stride, edges, 1) for part in parts], axis=-1)


def _together(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    stride, edges, groups = geometry
    return _convolve(x, kernel, stride, edges, groups)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    """Groups one by one on CPUs, together on GPUs.

    On CPUs XLA's grouped convolution leaves the fast path in the backward pass (12 times slower). On GPUs cuDNN has
    them; cutting maps apart and joining them would be a tenth of the bytes that a step of `two_column` moves.
    """
    return lax.platform_dependent(x, kernel, cuda=partial(_together, geometry), default=partial(_one_by_one, geometry))


def _grouped_forward(geometry: _Geometry, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _grouped(geometry, x, kernel), (x, kernel)


def _grouped_backward(geometry: _Geometry, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def backward(form: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        return lambda x, kernel, gradient: jax.vjp(partial(form, geometry), x, kernel)[1](gradient)

    return lax.platform_dependent(*kept, gradient, cuda=backward(_together), default=backward(_one_by_one))


_grouped.defvjp(_grouped_forward, _grouped_backward)


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
