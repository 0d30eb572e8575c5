"""Layers of the original code that PyTorch does not have, or not in this form."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_io.errors import UserError


def ceil_output_size(size: int, kernel: int, stride: int) -> int:
    """Number of windows along one side when the last may hang over the edge: 1 + ceil((size - kernel) / stride).

    A window never starts beyond the input. 0 where not a single window fits.
    """
    windows = 1 + math.ceil((size - kernel) / stride)
    if (windows - 1) * stride >= size:
        windows -= 1
    return max(windows, 0)


class CeilConv2d(nn.Conv2d):
    """Convolution whose last window may hang over the bottom and right edge, where zeros are read.

    This is how cuda-convnet gets 55 x 55 maps from 224 x 224 images without padding at the top and left.
    Takes and returns (N, C, H, W); arguments as for `torch.nn.Conv2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve maps of shape (N, C, H, W)."""
        (kernel_height, kernel_width), (stride_height, stride_width) = self.kernel_size, self.stride
        pad_height, pad_width = (int(side) for side in self.padding)
        height, width = input.shape[2] + 2 * pad_height, input.shape[3] + 2 * pad_width
        below = (ceil_output_size(height, kernel_height, stride_height) - 1) * stride_height
        right = (ceil_output_size(width, kernel_width, stride_width) - 1) * stride_width
        padded = F.pad(
            input,
            (
                pad_width,
                pad_width + max(right + kernel_width - width, 0),
                pad_height,
                pad_height + max(below + kernel_height - height, 0),
            ),
        )
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ClippedAvgPool2d(nn.Module):
    """Average pool that divides by the part of the window inside the map ([C2] kernel; the 2012 one is unknown).

    The last window may hang over the bottom and right edge. Takes and returns (N, C, H, W).
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Average the windows of maps of shape (N, C, H, W)."""
        inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        return self._window_sums(x) / self._window_sums(inside)

    def _window_sums(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size, self.stride
        overhang = [
            max((ceil_output_size(side, kernel, stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]
        ]
        padded = F.pad(x, (0, overhang[1], 0, overhang[0]))
        return F.avg_pool2d(padded, kernel, stride, divisor_override=1)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class LocalConv2d(nn.Module):
    """Convolution with its own weights and biases at every position (cuda-convnet's ``local``).

    Built for one map size. ``weight`` has shape (H_out, W_out, C_out, C_in, kernel, kernel) and ``bias``
    (H_out, W_out, C_out). Takes (N, C_in, H, W), returns (N, C_out, H_out, W_out).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        map_size: tuple[int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.map_size = map_size
        height, width = ((side + 2 * padding - kernel_size) // stride + 1 for side in map_size)
        if height < 1 or width < 1:
            raise UserError(
                f"a {kernel_size}x{kernel_size} window does not fit a map of {map_size[0]}x{map_size[1]} "
                f"padded by {padding}; use a larger map or more padding"
            )
        self.output_size = height, width
        self.weight = nn.Parameter(torch.empty(height, width, out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(height, width, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases as PyTorch's convolutions do, uniform in +-1/sqrt(fan_in)."""
        bound = 1 / math.sqrt(self.in_channels * self.kernel_size**2)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps of shape (N, C_in, H, W), H x W being `map_size`."""
        if tuple(x.shape[1:]) != (self.in_channels, *self.map_size):
            raise UserError(
                f"local layer built for maps of {(self.in_channels, *self.map_size)}, got {tuple(x.shape[1:])}; "
                f"build the network for this image size"
            )
        height, width = self.output_size
        # As views and one copy: on GPUs `F.unfold` starts a kernel for each image.
        windows = F.pad(x, (self.padding,) * 4)
        for axis in (2, 3):
            windows = windows.unfold(axis, self.kernel_size, self.stride)
        weight = self.weight.reshape(height * width, self.out_channels, -1)
        patches = windows.permute(0, 1, 4, 5, 2, 3).reshape(-1, weight.shape[2], height * width)
        products = torch.einsum("nip,poi->nop", patches, weight)
        return products.reshape(-1, self.out_channels, height, width) + self.bias.permute(2, 0, 1)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, map_size={self.map_size}"
        )


class Dropout(nn.Module):
    """Dropout whose mask can be given from outside, so that two frameworks can drop the same units.

    In training, values that are kept are multiplied by 1/(1 - rate); in evaluation the input is returned as it
    is. The paper (section 4.2) halves activations at test time instead, which is the same up to that factor.

    Attributes:
        rate: Probability of dropping a value.
        mask: None to draw anew at every call, or a boolean tensor of the input's shape, True where kept. Used
            at every call in training until set to None again; never part of the state dict.
        generator: Source of the draws; None for PyTorch's global one.
    """

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"dropout rate {rate} is out of range; choose a probability of dropping in [0, 1)")
        self.rate = rate
        self.mask: Tensor | None = None
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of ``x``, of any shape."""
        if not self.training:
            return x
        if self.mask is None:
            # Always float32: bfloat16 draws are too coarse for the rate to hold.
            draws = torch.rand(x.shape, device=x.device, dtype=torch.float32, generator=self.generator)
            keep = draws >= self.rate
        else:
            keep = _checked_mask(self.mask, x)
        return torch.where(keep, x * (1 / (1 - self.rate)), torch.zeros((), dtype=x.dtype, device=x.device))

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"rate={self.rate}"


def _checked_mask(mask: Tensor, x: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != x.shape:
        raise UserError(
            f"dropout mask is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"it must be torch.bool of shape {tuple(x.shape)}, True where kept"
        )
    return mask.to(x.device)
