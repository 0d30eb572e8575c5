"""Local response normalisation and the max-pool behind it as one operation, for GPUs.

A GPU's time is that of the bytes which it reads and writes, and the normalised maps of AlexNet's first layer are among
the largest of a step. Windows of the norm run along channels, those of the pool along positions: so each place of the
pool's windows is normalised by itself, and XLA makes one kernel of it all, which reads the maps and writes the pooled
ones. Where windows overlap, values are normalised more than once: 2.25 times with windows of 3 and a stride of 2.
"""

from collections.abc import Iterator
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array

from jax_alexnet.ops import lrn, pooling


def max_pool_of_norm(x: Array, norm: lrn.Window, window: int, stride: int, *, ceil: bool = False) -> Array:
    """`pooling.max_pool` of `lrn.local_response_norm`: the same values, and the same gradients.

    Args:
        x: maps (batch, height, width, channels).
        norm: windows along the last axis, from `lrn.window_across_channels`.
        window: side of the pool's window in pixels.
        stride: step between the pool's windows in pixels.
        ceil: see `pooling.max_pool`.

    Returns:
        Pooled maps, as of `pooling.max_pool`.

    Raises:
        UserError: the map is smaller than one window.
    """
    geometry = window, stride, ceil
    pooling.check(geometry, x)
    return _together(geometry, norm, x)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _together(geometry: tuple[int, int, bool], norm: lrn.Window, x: Array) -> Array:
    return reduce(jnp.maximum, _normalized_slices(geometry, norm, x))


@_together.defjvp
def _tangent(
    geometry: tuple[int, int, bool], norm: lrn.Window, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,) = primals
    best, chosen = pooling.first_maximum(geometry, _normalized_slices(geometry, norm, x))
    return best, pooling.shared_out(geometry, chosen, lrn.linearized(norm, *primals, *tangents))


def _normalized_slices(geometry: tuple[int, int, bool], norm: lrn.Window, x: Array) -> Iterator[Array]:
    """Each place of the pool's windows, normalised; beyond the map what never is the largest."""
    normalized = (lrn.value(norm, each) for each in pooling.window_slices(geometry, x, 0.0))
    if not geometry[2]:
        return normalized
    inside = pooling.window_slices(geometry, jnp.ones((1, *x.shape[1:3], 1), bool), beyond=False)
    return (jnp.where(counts, each, -jnp.inf) for each, counts in zip(normalized, inside, strict=True))
