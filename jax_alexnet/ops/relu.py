"""The rectified linear unit, whose gradient reads what it gave and not what it was given."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def relu(x: Array) -> Array:
    """max(x, 0), element by element; the gradient at 0 is 0, and NaN stays NaN, as in PyTorch.

    The gradient asks where the output is 0, so that the input needn't be kept. With `jax.nn.relu` a GPU's convolution
    would write its sums to memory for the gradient, and a pass of its own would make their maximum with 0; and `y > 0`
    instead of `y != 0` is simplified to just that by XLA.

    Args:
        x: an array of any shape and floating dtype.

    Returns:
        An array of the shape and dtype of `x`.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = relu(*primals)
    return y, jnp.where(y != 0, *tangents, 0)
