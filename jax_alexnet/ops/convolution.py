"""Convolutions on NHWC maps: grouped, with cuda-convnet's implied zeros, and with unshared kernels."""

import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.shapes import window_count


def conv(x: Array, kernel: Array, *, stride: int, padding: int, groups: int, ceil: bool = False) -> Array:
    """Cross-correlation of maps with shared kernels.

    Groups are computed one by one and joined: XLA's grouped convolution leaves the fast path in the backward
    pass (12 times slower on a CPU).

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

    def one(x: Array, kernel: Array) -> Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (stride, stride), edges, dimension_numbers=numbers)

    if groups == 1:
        return one(x, kernel)
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([one(*part) for part in parts], axis=-1)


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
