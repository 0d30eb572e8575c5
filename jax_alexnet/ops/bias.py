"""Adding a bias, with a gradient that is summed in float32 whatever the activations' precision."""

from functools import partial
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jax_alexnet.ops import varying
from jax_alexnet.ops.cpu import onednn
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.ops.multilinear import Form, everywhere, leave_open


def add_bias(x: Array, bias: Array, cpu: CpuForm = "auto") -> Array:
    """Add `bias` to the last axes of `x`, in the dtype of `x`.

    A bias's gradient is a sum over all examples and positions (batch 128 of 55x55 maps: 387,200 terms). Autodiff
    would add them up in the dtype of the activations: in bfloat16, whose sums stop growing at 256 times a term.

    Args:
        x: activations (batch, ..., *bias.shape).
        bias: any floating dtype; its gradient has the same.
        cpu: whether oneDNN is asked on CPUs; see `convolution.conv`.
    """
    x, bias = varying.alike(x, bias)
    summed = Form(partial(_summed_on_cpus, cpu, bias.shape, bias.dtype), partial(_summed, bias.shape, bias.dtype))
    spread = leave_open([summed, everywhere(partial(_spread, x.shape, x.dtype))], 1, bias)
    return leave_open([Form(lax.optimization_barrier, _as_it_is), everywhere(_as_it_is)], 1, x + spread)


def _as_it_is(x: Array) -> Array:
    return x


def _spread(shape: tuple[int, ...], dtype: jnp.dtype, bias: Array) -> Array:
    return jnp.broadcast_to(bias.astype(dtype), shape)


def _summed(shape: tuple[int, ...], dtype: jnp.dtype, gradient: Array) -> Array:
    axes = tuple(range(gradient.ndim - len(shape)))
    return jnp.sum(gradient, axis=axes, dtype=np.promote_types(gradient.dtype, np.float32)).astype(dtype)


def _summed_on_cpus(cpu: CpuForm, shape: tuple[int, ...], dtype: jnp.dtype, gradient: Array) -> Array:
    """As a product with ones.

    On CPUs XLA sums column by column, and computes all that made the gradient again on the way: a fifth of a step. A
    product reads rows, and the barrier that all gradients pass before it keeps what made them out of it. Eight rows of
    ones, all alike, make it a product of matrices, whose sums lose fewer digits than those of a vector and a matrix.
    """
    flat = gradient.reshape(-1, prod(shape))
    ones, flat = varying.alike(jnp.ones((8, flat.shape[0]), gradient.dtype), flat)
    if onednn.usable(gradient.dtype, cpu):
        rows = onednn.product(ones, flat)
    else:
        rows = jnp.dot(ones, flat, preferred_element_type=np.promote_types(gradient.dtype, np.float32))
    return rows[0].reshape(shape).astype(dtype)
