"""Initial weights and biases, layer by layer, as the sources draw them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_io.errors import UserError
from jax_alexnet.layer_specs import Conv, Dense, LocalConv

Initializer = Callable[..., Array]

SCHEMES = ("variant", "pytorch", "paper", "caffe")
# The paper gives these layers a positive bias so that their ReLUs start alive [P section 5].
_ALIVE = ("conv2", "conv4", "conv5", "fc6", "fc7")


def initializers(layer: Conv | LocalConv | Dense, scheme: str, fan_in: int) -> tuple[Initializer, Initializer]:
    """Initializers of the kernel and the bias of `layer`.

    Args:
        layer: the layer's row in its variant's table.
        scheme: `variant` (the network's own), `pytorch` (uniform within 1/sqrt(fan_in), biases too), `paper`
            (normal of 0.01, biases of 1 in five layers [P section 5]) or `caffe` (bvlc_alexnet's: as the paper,
            with 0.005 in fc6 and fc7 and biases of 0.1 [K]).
        fan_in: inputs that one output sums over.

    Raises:
        UserError: unknown scheme.
    """
    if scheme not in SCHEMES:
        raise UserError(f"weight_init is {scheme!r}: choose one of {', '.join(SCHEMES)}")
    if scheme == "pytorch" or (scheme == "variant" and layer.std is None):
        bound = fan_in**-0.5
        return _uniform(bound), _uniform(bound)
    std, bias = layer.std, layer.bias
    if scheme == "paper":
        std, bias = 0.01, float(layer.name in _ALIVE)
    elif scheme == "caffe":
        std = 0.005 if layer.name in ("fc6", "fc7") else 0.01
        bias = 0.1 if layer.name in _ALIVE else 0.0
    return jax.nn.initializers.normal(std), jax.nn.initializers.constant(bias)


def _uniform(bound: float) -> Initializer:
    def draw(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw
