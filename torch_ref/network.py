"""What all networks share: which image sizes work, and refusing everything else in plain words."""

from typing import Any

import torch
from torch import Tensor, nn

from alexnet_io.errors import UserError
from torch_ref.layers import CeilConv2d, ClippedAvgPool2d, LocalConv2d, ceil_output_size

CHANNELS = 3


class Network(nn.Module):
    """Base class: children are layers, registered in the order in which they run.

    Attributes:
        image_size: Height and width that the network is built for.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size = image_size

    def map_size(self, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Height and width of the map after the layers registered so far, up to the first fully connected one.

        Args:
            image_size: Height and width of the images, by default what the network is built for.

        Raises:
            UserError: The images are too small for one of the layers.
        """
        height, width = image_size or self.image_size
        sizes = self._map_side(height), self._map_side(width)
        if min(sizes) < 1:
            smallest = self.smallest_image_size()
            raise UserError(
                f"images of {height}x{width} are too small; the smallest that work are {smallest}x{smallest}"
            )
        return sizes

    def smallest_image_size(self) -> int:
        """The smallest side with which no map is empty."""
        side = 1
        while self._map_side(side) < 1:
            side += 1
        return side

    def check_images(self, images: Tensor) -> None:
        """Refuse images that the network cannot use.

        Args:
            images: Should be floating point, (N, 3, H, W).

        Raises:
            UserError: Wrong dtype, number of dimensions, channels or size; names what works.
        """
        shape = tuple(images.shape)
        smallest = self.smallest_image_size()
        wanted = (
            f"give (N, {CHANNELS}, H, W) with H and W at least {smallest}; "
            f"this network was built for {self.image_size[0]}x{self.image_size[1]}"
        )
        if images.ndim != 4:
            hint = " (add a batch dimension)" if images.ndim == 3 else ""
            raise UserError(f"images of shape {shape} have {images.ndim} dimensions{hint}; {wanted}")
        if shape[1] != CHANNELS:
            hint = " (channels last? permute to N, C, H, W)" if shape[3] == CHANNELS else ""
            raise UserError(f"images of shape {shape} have {shape[1]} channels{hint}; {wanted}")
        if not torch.is_floating_point(images):
            raise UserError(f"images are {images.dtype}; normalise them to floating point first; {wanted}")
        if min(shape[2:]) < smallest:
            raise UserError(f"images of {shape[2]}x{shape[3]} are too small; {wanted}")
        got, built = self.map_size((shape[2], shape[3])), self.map_size()
        if got != built:
            raise UserError(
                f"images of {shape[2]}x{shape[3]} give maps of {got[0]}x{got[1]}, but {self._first_linear()} "
                f"needs {built[0]}x{built[1]}: it was built for {self.image_size[0]}x{self.image_size[1]}; "
                f"resize the images or build the network with image_size=({shape[2]}, {shape[3]}); "
                f"sides of at least {smallest} work"
            )

    def _map_side(self, side: int) -> int:
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                break
            side = _output_side(layer, side)
            if side < 1:
                return 0
        return side

    def _first_linear(self) -> str:
        return next(name for name, layer in self.named_children() if isinstance(layer, nn.Linear))


def layers_with_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that have parameters, in running order; the last one makes the logits."""
    return tuple(name for name, layer in network.named_children() if any(True for _ in layer.parameters()))


def _output_side(layer: nn.Module, side: int) -> int:
    """Side of a layer's output map given that of its input; 0 or less where nothing fits."""
    match layer:
        case CeilConv2d():
            inside = side + 2 * _one(layer.padding)
            kernel = _one(layer.kernel_size)
            # A whole window must fit (cuda-convnet refuses a filter larger than the image).
            return ceil_output_size(inside, kernel, _one(layer.stride)) if inside >= kernel else 0
        case nn.MaxPool2d(ceil_mode=True) | ClippedAvgPool2d():
            return ceil_output_size(side, _one(layer.kernel_size), _one(layer.stride))
        case nn.Conv2d() | LocalConv2d() | nn.MaxPool2d() | nn.AvgPool2d():
            return (side + 2 * _one(layer.padding) - _one(layer.kernel_size)) // _one(layer.stride) + 1
        case nn.AdaptiveAvgPool2d():
            return _one(layer.output_size)
        case _:
            return side


def _one(setting: Any) -> int:
    """The number for one side of a setting that PyTorch keeps as a number or a pair; all ours are square."""
    return int(setting if isinstance(setting, int) else setting[0])
