"""Adding a bias, with a gradient that is summed in float32 whatever the activations' precision."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Add `bias` to the last axes of `x`, in the dtype of `x`.

    A bias's gradient is a sum over all examples and positions (batch 128 of 55x55 maps: 387,200 terms). Autodiff
    would add them up in the dtype of the activations: in bfloat16, whose sums stop growing at 256 times a term.

    Args:
        x: activations (batch, ..., *bias.shape).
        bias: any floating dtype; its gradient has the same.
    """
    return x + bias.astype(x.dtype)


def _forward(x: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(x, bias), bias


def _backward(bias: Array, gradient: Array) -> tuple[Array, Array]:
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    summed = jnp.sum(gradient, axis=tuple(range(gradient.ndim - bias.ndim)), dtype=wide)
    return gradient, summed.astype(bias.dtype)


add_bias.defvjp(_forward, _backward)
