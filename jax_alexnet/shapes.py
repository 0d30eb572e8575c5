"""Output shapes, parameters and multiply-accumulates of a network, by arithmetic alone: no JAX is imported."""

from dataclasses import dataclass
from math import prod

from alexnet_io.errors import UserError
from jax_alexnet.layer_specs import AdaptivePool, Conv, Dense, Layer, LocalConv, Pool, Variant

Size = tuple[int, int]


@dataclass(frozen=True)
class LayerShape:
    """What one layer makes of one image: (height, width, channels) or (features,), and what it costs."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def window_count(size: int, window: int, stride: int, padding: int = 0, ceil: bool = False) -> int:
    """Windows along one side: 1 + (n + 2p - k)/s, rounded up if `ceil`, else down; may be 0 or negative.

    A ceil-mode window that would begin beyond the input is left out, as in Caffe and PyTorch.
    """
    free = size + 2 * padding - window
    count = 1 + (-(-free // stride) if ceil else free // stride)
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def layer_shape(layer: Layer, shape: tuple[int, ...], classes: int) -> LayerShape:
    """Shape and cost of `layer` on an input of (height, width, channels) or (features,).

    Raises:
        UserError: no window of the layer fits into the input.
    """
    if isinstance(layer, Dense):
        features, width = layer.features or classes, prod(shape)
        return LayerShape(layer.name, (features,), (width + 1) * features, width * features)
    if isinstance(layer, AdaptivePool):
        return LayerShape(layer.name, (layer.size, layer.size, shape[2]), 0, 0)
    if not isinstance(layer, (Conv, LocalConv, Pool)):
        return LayerShape(layer.name, shape, 0, 0)
    height, width, channels = shape
    padding = 0 if isinstance(layer, Pool) else layer.padding
    stride, ceil = (1, False) if isinstance(layer, LocalConv) else (layer.stride, layer.ceil)
    out = tuple(window_count(n, layer.window, stride, padding, ceil) for n in (height, width))
    if min(out) < 1:
        raise UserError(f"{layer.name}: no {layer.window}x{layer.window} window fits into {height}x{width}")
    if isinstance(layer, Pool):
        return LayerShape(layer.name, (*out, channels), 0, 0)
    positions = prod(out)
    groups, copies = (1, positions) if isinstance(layer, LocalConv) else (layer.groups, 1)
    kernel = layer.window**2 * channels // groups * layer.features
    return LayerShape(layer.name, (*out, layer.features), copies * (kernel + layer.features), positions * kernel)


def trace(variant: Variant, image_size: int | tuple[int, ...], classes: int | None = None) -> list[LayerShape]:
    """Every layer's shape and cost for one RGB image of `image_size` pixels (a side, or height and width).

    Raises:
        UserError: the image is too small; the message names the smallest that works.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
    try:
        return _trace(variant, size, classes or variant.classes)
    except UserError as error:
        smallest = smallest_image_size(variant)
        raise UserError(
            f"{variant.name} can't take {size[0]}x{size[1]} images ({error}). "
            f"The smallest size that works is {smallest}x{smallest}; its own is {variant.image_size}."
        ) from None


def smallest_image_size(variant: Variant) -> int:
    """The smallest side in pixels of a square image on which every layer has an output."""
    for side in range(1, variant.image_size + 1):
        try:
            _trace(variant, (side, side), variant.classes)
        except UserError:
            continue
        return side
    raise AssertionError(f"{variant.name} does not fit its own image size")


def _trace(variant: Variant, size: Size, classes: int) -> list[LayerShape]:
    rows: list[LayerShape] = []
    shape: tuple[int, ...] = (*size, 3)
    for layer in variant.layers:
        rows.append(layer_shape(layer, shape, classes))
        shape = rows[-1].output_shape
    return rows
