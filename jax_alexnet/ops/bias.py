"""Adding a bias, with a gradient that is summed in float32 whatever the activations' precision."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.ops import onednn, varying


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

    def added(gradient: Array) -> tuple[Array, Array]:
        return gradient, jnp.sum(gradient, axis=tuple(range(gradient.ndim - bias.ndim)), dtype=wide)

    def multiplied(gradient: Array) -> tuple[Array, Array]:
        # On CPUs XLA sums column by column, and computes all that made the gradient again on the way: a fifth of a
        # step. As a product with ones it reads rows, once, and oneDNN's with nothing of XLA's in it. Eight rows of
        # ones, all alike, make it a product of matrices, whose sums lose fewer digits than those of a vector and a
        # matrix.
        gradient = lax.optimization_barrier(gradient)
        flat = gradient.reshape(-1, bias.size)
        ones, flat = varying.alike(jnp.ones((8, flat.shape[0]), gradient.dtype), flat)
        if onednn.reason_against(gradient.dtype) is None:
            return gradient, onednn.product(ones, flat)[0].reshape(bias.shape)
        return gradient, jnp.dot(ones, flat, preferred_element_type=wide)[0].reshape(bias.shape)

    gradient, summed = lax.platform_dependent(gradient, cpu=multiplied, default=added)
    return gradient, summed.astype(bias.dtype)


add_bias.defvjp(_forward, _backward)
