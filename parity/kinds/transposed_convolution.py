"""Transposed convolutions: kernels I O H W in PyTorch, H W I O and turned round in Flax.

PyTorch's are gradients of convolutions, which turn the kernel round; Flax's, unless `transpose_kernel` is set, slide it
as it is over the spread-out input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import Multiplied, kernel_and_bias, kernel_differences, wrong_weight
from parity.kinds.kind import BIAS, Kind, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, pair, setting
from parity.kinds.layouts import Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposedConvolution(Multiplied):
    """Each value of maps (N, I, H, W) puts the kernel (I, O, h, w) times itself into the result.

    Attributes:
        stride: how far apart neighbours put theirs.
        padding: rows and columns that are cut off at the top and left.
        size: height and width of the result.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    size: tuple[int, int]

    def forward(self) -> NDArray:
        """Put down, then cut."""
        weight, (down, right) = self.weight, self.stride
        batch, _, height, width = self.x.shape
        top, left = self.padding
        rows = max((height - 1) * down + weight.shape[2], top + self.size[0])
        columns = max((width - 1) * right + weight.shape[3], left + self.size[1])
        out = np.zeros((batch, weight.shape[1], rows, columns))
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                share = np.einsum("nihw,io->nohw", self.x, weight[..., i, j], optimize=True)
                out[:, :, i : i + height * down : down, j : j + width * right : right] += share
        out = out[:, :, top : top + self.size[0], left : left + self.size[1]]
        return out if self.bias is None else out + self.bias[:, None, None]

    def input_gradient(self, g: NDArray) -> NDArray:
        """What the kernel sees from each place."""
        return sum(
            (np.einsum("nohw,io->nihw", seen, self.weight[..., i, j]) for i, j, seen in self._seen(g)), np.zeros(())
        )

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples and places."""
        if name == "bias":
            return g.sum((0, 2, 3))
        if name != "weight":
            return None
        found = np.zeros(self.weight.shape)
        for i, j, seen in self._seen(g):
            found[..., i, j] = np.einsum("nohw,nihw->io", seen, self.x)
        return found

    def _seen(self, g: NDArray) -> Iterator[tuple[int, int, NDArray]]:
        """For each place in the kernel, where in the result's gradient every input's product went."""
        (down, right), (top, left) = self.stride, self.padding
        height, width = self.x.shape[2:]
        kernel = self.weight.shape[2:]
        rows = max((height - 1) * down + kernel[0], top + self.size[0])
        columns = max((width - 1) * right + kernel[1], left + self.size[1])
        uncut = np.zeros((*g.shape[:2], rows, columns))
        uncut[:, :, top : top + self.size[0], left : left + self.size[1]] = g
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                yield i, j, uncut[:, :, i : i + height * down : down, j : j + width * right : right]

    def own_mistakes(self) -> Iterator[Mistake]:
        """Flipping, channels, bias, and what is cut off."""
        text = "the kernel is flipped"
        yield wrong_weight("kernel_flipped", text, lambda w: w[..., ::-1, ::-1])
        yield wrong_weight("kernel_flipped_h", "the kernel is flipped from top to bottom", lambda w: w[..., ::-1, :])
        yield wrong_weight("kernel_flipped_w", "the kernel is flipped from left to right", lambda w: w[..., ::-1])
        text = "height and width of the kernel are exchanged"
        yield wrong_weight("kernel_hw_exchanged", text, lambda w: w.swapaxes(2, 3))
        text = "input and output channels of the kernel are exchanged"
        yield wrong_weight("kernel_io_exchanged", text, lambda w: w.swapaxes(0, 1))
        yield from self.bias_mistakes()
        top, left = self.padding
        for more in (1, -1, 2, -2):
            if min(top, left) + more >= 0:
                text = f"the result begins {abs(more)} {'later' if more > 0 else 'earlier'} in the uncut one"
                yield setting("padding", text, padding=(top + more, left + more))


def _layer(recorded: Recorded) -> Layer | None:
    weights, settings = kernel_and_bias(recorded), recorded.settings
    known = weights is not None and recorded.x.ndim == 4 and isinstance(settings.get("padding"), (list, tuple))
    if not known or weights is None or settings.get("groups", 1) != 1 or set(pair(settings["dilation"])) != {1}:
        return None
    stride, padding = pair(settings["stride"]), pair(settings["padding"])
    more, window = pair(settings.get("output_padding", 0)), weights["weight"].shape[2:]
    sizes = [
        (n - 1) * s - 2 * p + k + m
        for n, s, p, k, m in zip(recorded.x.shape[2:], stride, padding, window, more, strict=True)
    ]
    return TransposedConvolution(
        x=recorded.x, weights=weights, stride=stride, padding=padding, size=(sizes[0], sizes[1])
    )


def _to_flax(weight: NDArray, layout: Layout | None) -> NDArray:
    return np.flip(np.moveaxis(weight, (0, 1), (-2, -1)), tuple(range(weight.ndim - 2)))


def _to_torch(kernel: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(np.flip(kernel, tuple(range(kernel.ndim - 2))), (-2, -1), (0, 1))


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "ConvTranspose" and "kernel" in shapes


KIND = Kind(
    name="transposed_conv",
    torch_classes=("conv._ConvTransposeNd",),
    weights=(Weight("weight", "kernel", to_flax=_to_flax, to_torch=_to_torch), BIAS),
    in_flax=_in_flax,
    linear=True,
    layer=_layer,
    shape_differences=kernel_differences,
)
