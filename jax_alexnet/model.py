"""AlexNet as one Flax Linen module: it walks down its variant's table."""

from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from alexnet_io.errors import UserError
from jax_alexnet import layer_specs as specs
from jax_alexnet import layers
from jax_alexnet import variants as v
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.shapes import smallest_image_size, trace


class AlexNet(nn.Module):
    """Any of the networks in `variants.VARIANTS`.

    Attributes:
        variant: the table of layers, or its name.
        classes: number of logits; the variant's own if None.
        weight_init: `variant`, `pytorch`, `paper` or `caffe`; see `initialization.initializers`.
        dropout_rate: replaces the variant's rate of 0.5 if given.
        dtype: of activations and arithmetic.
        param_dtype: of the stored weights.
        cpu_convolution: who computes convolutions on CPUs; see `ops.convolution.conv`. With winograd and xla oneDNN is
            left out of everything else, too.
        units_first: whether kernels of fully connected layers are (features, inputs), as `steps.for_inference` makes
            them of the usual (inputs, features).
    """

    variant: specs.Variant | str = v.SINGLE_COLUMN
    classes: int | None = None
    weight_init: str = "variant"
    dropout_rate: float | None = None
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    cpu_convolution: CpuForm = "auto"
    units_first: bool = False

    @nn.compact
    def __call__(
        self,
        images: Array,
        *,
        train: bool = False,
        capture: bool = False,
        dropout_masks: dict[str, Array] | None = None,
        first_example: Array | int = 0,
    ):
        """Logits of a batch of images.

        Args:
            images: (batch, height, width, 3), normalised, floating point.
            train: whether dropout drops; needs an rng stream `dropout` unless masks are given.
            capture: return the named activations as well.
            dropout_masks: by layer name (`drop6`, `drop7`), bool of that layer's input shape, True where kept.
            first_example: place of images[0] in the global batch; dropout masks follow it.

        Returns:
            Logits (batch, classes) in `dtype`; with `capture`, (logits, {layer name: activation, NHWC}).

        Raises:
            UserError: the images are unbatched, not RGB, not floating point or too small; the message names
                the smallest size that works.
        """
        variant = v.VARIANTS[self.variant] if isinstance(self.variant, str) else self.variant
        classes = self.classes or variant.classes
        check_images(variant, images)
        x = images.astype(self.dtype)
        activations: dict[str, Array] = {}
        rows = variant.layers if capture or not train else _joined(variant.layers)
        for row in rows:
            if isinstance(row, tuple):
                x = layers.normalize_and_pool(*row, x)
                continue
            if isinstance(row, specs.Exchange):
                x, first_example = layers.exchange(row, x, first_example)
            elif isinstance(row, specs.Dropout):
                rate = row.rate if self.dropout_rate is None else self.dropout_rate
                mask = (dropout_masks or {}).get(row.name)
                dropout = layers.Dropout(rate, row.part_along, name=row.name)
                x = dropout(x, train=train, mask=mask, first_example=first_example)
            else:
                how = (self.weight_init, self.param_dtype, self.cpu_convolution, self.units_first)
                x = layer_module(row, classes, *how)(x)
            if capture:
                activations[row.name] = x
        return (x, activations) if capture else x


def _joined(rows: Sequence[specs.Layer]) -> Iterator[specs.Layer | tuple[specs.LRN, specs.Pool]]:
    """The rows in order, a norm across channels and the max-pool behind it together."""
    left = list(rows)
    while left:
        row = left.pop(0)
        if isinstance(row, specs.LRN) and left and isinstance(pool := left[0], specs.Pool) and pool.kind == "max":
            left.pop(0)
            yield row, pool
        else:
            yield row


def layer_module(
    row: specs.Layer,
    classes: int,
    weight_init: str = "variant",
    param_dtype: Any = jnp.float32,
    cpu_convolution: CpuForm = "auto",
    units_first: bool = False,
) -> nn.Module:
    """The module of one row of a network's table, dropout excepted, under the row's name.

    Args:
        row: of `Variant.layers`.
        classes: features of the last layer.
        weight_init: see `AlexNet`; likewise param_dtype, cpu_convolution and units_first.
        param_dtype: see `weight_init`.
        cpu_convolution: see `weight_init`.
        units_first: see `weight_init`.
    """
    common = {"param_dtype": param_dtype, "cpu_convolution": cpu_convolution, "name": row.name}
    weighted: Any = {"weight_init": weight_init, **common}
    match row:
        case specs.Conv():
            return layers.Conv(row, **weighted)
        case specs.LocalConv():
            return layers.LocalConv(row, **weighted)
        case specs.Dense():
            return layers.Dense(row, features=row.features or classes, units_first=units_first, **weighted)
        case specs.Relu():
            return layers.Relu(name=row.name)
        case specs.Tanh():
            return layers.Tanh(name=row.name)
        case specs.LRN() | specs.SpatialNorm():
            return layers.Norm(row, name=row.name)
        case specs.Pool() | specs.AdaptivePool():
            return layers.Pool(row, name=row.name)
    raise TypeError(f"no module for {row!r}")


def check_images(variant: specs.Variant, images: Array) -> None:
    """Refuse a batch that the network can't take.

    Raises:
        UserError: naming what is wrong, the shape that is right and the smallest size that works.
    """
    smallest = f"(batch, height, width, 3) with sides of {variant.image_size} by default"
    if images.ndim != 4:
        hint = "; add the batch axis with images[None]" if images.ndim == 3 else ""
        raise UserError(
            f"{variant.name} takes batches of images {smallest}, not shape {images.shape}{hint}. " + _smallest(variant)
        )
    if images.shape[-1] != 3:
        hint = ": channels come last here, use images.transpose(0, 2, 3, 1)" if images.shape[1] == 3 else ""
        raise UserError(
            f"{variant.name} takes RGB images {smallest}, not {images.shape[-1]} channels in shape "
            f"{images.shape}{hint}. " + _smallest(variant)
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"{variant.name} takes normalised floating-point images, not {images.dtype}")
    trace(variant, images.shape[1:3])


def _smallest(variant: specs.Variant) -> str:
    side = smallest_image_size(variant)
    return f"The smallest size that works is {side}x{side}."
