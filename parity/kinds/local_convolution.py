"""Unshared (local) convolutions: a kernel of its own at every position, a class that neither framework has.

Kernel (H', W', O, I, h, w) in PyTorch, (H', W', h, w, I, O) in Flax; a parameter of six axes is what they are known by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import Multiplied, by, kernel_and_bias, kernel_differences, wrong_weight
from parity.kinds.kind import BIAS, Difference, Kind, Shape, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, pair
from parity.kinds.layouts import Layout
from parity.kinds.windows import Sizes, Windowed, places, symmetric


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalConvolution(Multiplied, Windowed):
    """Maps (N, C, H, W) with weight (H', W', O, C, h, w) and bias (H', W', O)."""

    @property
    def window(self) -> Sizes:
        """The kernels' height and width."""
        return self.weight.shape[4], self.weight.shape[5]

    @property
    def rounds_windows(self) -> bool:
        """There is a kernel for so many windows, and no more."""
        return False

    def forward(self) -> NDArray:
        """One product a position."""
        out = np.einsum("nchwij,hwocij->nohw", self.seen(), self.weight, optimize=True)
        return out if self.bias is None else out + self.bias.transpose(2, 0, 1)

    def offset(self) -> NDArray | None:
        """The bias of every position."""
        return None if self.bias is None else self.bias.transpose(2, 0, 1)

    def input_gradient(self, g: NDArray) -> NDArray:
        """Each place in the window sends its product back to where it looked."""
        return self.spread(
            ((i, j), np.einsum("nohw,hwoc->nchw", g, self.weight[..., i, j], optimize=True))
            for i, j in places(self.window)
        )

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples."""
        if name == "bias":
            return g.sum(0).transpose(1, 2, 0)
        return np.einsum("nohw,nchwij->hwocij", g, self.seen(), optimize=True) if name == "weight" else None

    def own_mistakes(self) -> Iterator[Mistake]:
        """Layouts of kernels and positions, bias, geometry."""
        height, width = self.weight.shape[:2]
        text = "height and width of the kernels are exchanged"
        yield wrong_weight("kernel_hw_exchanged", text, lambda w: w.swapaxes(4, 5))
        text = "rows and columns of the positions are exchanged"
        yield wrong_weight("positions_exchanged", text, lambda w: w.swapaxes(0, 1))
        if height == width:
            text = f"{text}, in the biases too"
            yield Mistake("positions_exchanged", text, lambda p: _exchanged(p, "weight", "bias"))
            text = "rows and columns of the biases' positions are exchanged"
            yield Mistake("bias_positions_exchanged", text, lambda p: _exchanged(p, "bias"))
        yield wrong_weight("kernel_flipped", "the kernels are flipped", lambda w: w[..., ::-1, ::-1])
        yield wrong_weight("positions_flipped", "the positions are flipped", lambda w: w[::-1, ::-1])
        yield wrong_weight("kernel_io_exchanged", "input and output channels are exchanged", lambda w: w.swapaxes(2, 3))
        text = "every position has the first one's kernel"
        yield wrong_weight("weights_shared", text, lambda w: np.broadcast_to(w[:1, :1], w.shape))
        text = "patches are read channel last for channel first"
        yield wrong_weight("patches_order", text, lambda w: w.transpose(0, 1, 2, 4, 5, 3).reshape(w.shape))
        text = "patches are read channel first for channel last"
        yield wrong_weight("patches_order", text, _channel_last)
        yield from self.bias_mistakes()
        yield from self.geometry_mistakes()


def _channel_last(w: NDArray) -> NDArray:
    return w.reshape(*w.shape[:3], *w.shape[4:], w.shape[3]).transpose(0, 1, 2, 5, 3, 4)


def _exchanged(p: Layer, *names: str) -> Layer | None:
    if any(name not in p.weights for name in names):
        return None
    return p.with_weights(**{name: p.weights[name].swapaxes(0, 1) for name in names})


def _layer(recorded: Recorded) -> Layer | None:
    weights = kernel_and_bias(recorded)
    if weights is None:
        return None
    stride, pads = (pair(recorded.settings.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0)))
    return LocalConvolution(x=recorded.x, weights=weights, stride=stride, pads=symmetric(pads))


def _in_torch(shapes: Shapes) -> bool:
    return any(len(shape) == 6 for shape in shapes.values())


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return len(shapes.get("kernel", ())) == 6


def _to_flax(weight: NDArray, layout: Layout | None) -> NDArray:
    return weight.transpose(0, 1, 4, 5, 3, 2)


def _to_torch(kernel: NDArray, layout: Layout | None) -> NDArray:
    return kernel.transpose(0, 1, 5, 4, 2, 3)


def _differences(flax: Shape, torch: Shape) -> list[Difference]:
    found = kernel_differences(flax, torch, "input channels")
    if len(flax) != len(torch) or flax[:2] == torch[:2]:
        return found
    text = f"maps are {by(flax[:2])} in Flax, {by(torch[:2])} in PyTorch"
    return [Difference("map_size", text), *found]


KIND = Kind(
    name="local_conv",
    own_classes=("LocalConv2d",),
    weights=(Weight("weight", "kernel", to_flax=_to_flax, to_torch=_to_torch), BIAS),
    in_torch=_in_torch,
    in_flax=_in_flax,
    linear=True,
    layer=_layer,
    shape_differences=_differences,
)
