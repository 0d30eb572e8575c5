"""The networks as `flax.nnx` modules: `AlexNet(...)(images)`, with weights and keys in the object.

They are the Linen modules of `model.py` behind Flax's own bridge, so that there is one network and not two: the same
weights under the same names give the same logits, and keys for dropout the same masks.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx import bridge
from jax import Array

from jax_alexnet import model as linen
from jax_alexnet.layer_specs import Variant
from jax_alexnet.variants import VARIANTS


class AlexNet(bridge.ToNNX):
    """Any of the networks in `variants.VARIANTS`, for `nnx.jit`, `nnx.grad`, `nnx.Optimizer` and the like.

    Its layers are attributes: `network.conv1["kernel"]` is an `nnx.Param`.

    Args:
        variant: the table of layers, or its name.
        classes: number of logits; the variant's own if None.
        rngs: with a stream `params` for fresh weights, and `dropout` for training; a stream by default serves both.
        image_size: side in pixels that fully connected layers are made for; the variant's own if None.
        params: {layer: {"kernel", "bias"}} to begin with instead of fresh weights, such as
            `load_run(...).variables["params"]`.
        settings: further ones of `model.AlexNet`: weight_init, dropout_rate, dtype, param_dtype, cpu_convolution.
    """

    def __init__(
        self,
        variant: Variant | str = "single_column",
        classes: int | None = None,
        *,
        rngs: nnx.Rngs,
        image_size: int | None = None,
        params: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        table = VARIANTS[variant] if isinstance(variant, str) else variant
        super().__init__(linen.AlexNet(table, classes, **settings), rngs)
        side = image_size or table.image_size
        bridge.lazy_init(self, jnp.zeros((1, side, side, 3)))
        if params is not None:
            state = nnx.state(self, nnx.Param)
            nnx.replace_by_pure_dict(state, {layer: dict(leaves) for layer, leaves in params.items()})
            nnx.update(self, state)

    def __call__(self, images: Array, *, train: bool = False, **how: Any) -> Any:
        """Logits of normalised images (batch, height, width, 3).

        Args:
            images: see `model.AlexNet.__call__`.
            train: whether dropout drops; likewise.
            how: capture, dropout_masks and first_example; likewise.
        """
        # Nothing is drawn in evaluation, so that it changes no state and `jax.jit` may close over the network.
        rngs = None if train or self._pytree__state.initializing else nnx.Rngs()
        return super().__call__(images, rngs=rngs, train=train, **how)
