"""Convolutions: 1-, 2- and 3-dimensional, with groups; kernels O I H W in PyTorch, H W I O in Flax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import OutputsFirst, kernel_and_bias, kernel_differences, reordered_outputs, wrong_weight
from parity.kinds.kind import BIAS, Kind, Shape, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, Settings, WrongGradient, pair, reordered_input, then
from parity.kinds.layouts import Layout
from parity.kinds.windows import Pads, Pair, Windowed, symmetric


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(OutputsFirst, Windowed):
    """Cross-correlation of maps (N, C, H, W) with kernels (O, C / groups, h, w)."""

    @property
    def window(self) -> Pair:
        """The kernel's height and width."""
        return self.weight.shape[-2], self.weight.shape[-1]

    def forward(self) -> NDArray:
        """One product a group."""
        parts = []
        inputs = np.split(self.seen(), self.groups, axis=1)
        for seen, kernel in zip(inputs, np.split(self.weight, self.groups, axis=0), strict=True):
            parts.append(np.moveaxis(np.tensordot(seen, kernel, axes=((1, 4, 5), (1, 2, 3))), -1, 1))
        out = np.concatenate(parts, axis=1)
        return out if self.bias is None else out + self.bias[:, None, None]

    def input_gradient(self, g: NDArray) -> NDArray:
        """Each place in the window sends its product back to where it looked."""
        return self._input_gradient(g, self.weight)

    def _input_gradient(self, g: NDArray, weight: NDArray) -> NDArray:
        height, width = weight.shape[2:]

        def shares() -> Iterator[tuple[int, int, NDArray]]:
            for i in range(height):
                for j in range(width):
                    parts = [
                        np.einsum("nohw,oc->nchw", part, kernel[..., i, j], optimize=True)
                        for part, kernel in zip(
                            np.split(g, self.groups, 1), np.split(weight, self.groups, 0), strict=True
                        )
                    ]
                    yield i, j, np.concatenate(parts, axis=1)

        return self.spread(shares())

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples and positions."""
        if name == "bias":
            return g.sum((0, 2, 3))
        if name != "weight":
            return None
        groups = zip(np.split(g, self.groups, 1), np.split(self.seen(), self.groups, 1), strict=True)
        return np.concatenate([np.tensordot(out, x, axes=((0, 2, 3), (0, 2, 3))) for out, x in groups])

    def own_mistakes(self) -> Iterator[Mistake]:
        """Layouts of the kernel, groups, bias, geometry."""
        yield wrong_weight(
            "kernel_hw_exchanged", "height and width of the kernel are exchanged", lambda w: w.swapaxes(2, 3)
        )
        text = "the kernel is flipped (convolution for cross-correlation)"
        yield wrong_weight("kernel_flipped", text, lambda w: w[..., ::-1, ::-1])
        yield wrong_weight("kernel_flipped_h", "the kernel is flipped from top to bottom", lambda w: w[..., ::-1, :])
        yield wrong_weight("kernel_flipped_w", "the kernel is flipped from left to right", lambda w: w[..., ::-1])
        yield wrong_weight(
            "kernel_io_exchanged", "input and output channels of the kernel are exchanged", self._io_exchanged
        )
        text = "the kernel is transposed whole (channels, and height with width)"
        yield wrong_weight("kernel_io_hw_exchanged", text, self._transposed)
        yield wrong_weight("kernel_reshaped", "the kernel is reshaped where it should be transposed", _reshaped)
        if self.groups > 1:
            yield from self._group_mistakes()
        text = "the input channels come in reverse order (BGR for RGB)"
        yield wrong_weight("channels_reversed", text, lambda w: w[:, ::-1])
        yield from self.bias_mistakes()
        yield from self.geometry_mistakes()

    def _io_exchanged(self, w: NDArray) -> NDArray | None:
        halves = np.split(w, self.groups, axis=0)
        return np.concatenate([h.swapaxes(0, 1) for h in halves]) if halves[0].shape[0] == w.shape[1] else None

    def _transposed(self, w: NDArray) -> NDArray | None:
        exchanged = self._io_exchanged(w)
        return None if exchanged is None else exchanged.swapaxes(2, 3)

    def _group_mistakes(self) -> Iterator[Mistake]:
        groups, outputs, inputs = self.groups, self.weight.shape[0], self.x.shape[1]
        exchanged = np.roll(np.arange(outputs), outputs // groups)
        key, text = "groups_exchanged", "the groups' kernels are exchanged"
        yield wrong_weight(key, text, lambda w: w[exchanged])
        yield reordered_outputs(key, f"{text}, biases too", exchanged)
        text = "the groups see each other's input channels"
        yield reordered_input(key, text, np.roll(np.arange(inputs), inputs // groups))
        key = "groups_interleaved"
        for name, direction in (("interleaved", 1), ("de-interleaved", 0)):
            order = _interleaved(outputs, groups, direction)
            text = f"the groups' output channels are {name}"
            yield wrong_weight(key, f"{text} in the kernel", lambda w, order=order: w[order])
            yield reordered_outputs(key, text, order)
            coming = _interleaved(inputs, groups, direction)
            text = f"the groups' input channels are {name}"
            reordered = reordered_input(key, text, coming)
            yield reordered
            for outer in (0, 1):
                leaving = _interleaved(outputs, groups, outer)
                yield Mistake(key, f"{text}, and so are the outputs", _both(reordered, leaving))

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """Another kernel than forward."""
        weight = self.weight
        flipped, transposed = weight[..., ::-1, ::-1], weight.swapaxes(2, 3)
        yield WrongGradient("gradient_flip", "the kernel is flipped", self._input_gradient(g, flipped))
        yield WrongGradient("gradient_hw", "the kernel is transposed", self._input_gradient(g, transposed))
        if self.groups > 1:
            order = np.roll(np.arange(weight.shape[0]), weight.shape[0] // self.groups)
            exchanged = self._input_gradient(g, weight[order])
            yield WrongGradient("gradient_groups", "the groups are exchanged", exchanged)


def _both(first: Mistake, leaving: NDArray) -> Callable[[Layer], Layer | None]:
    def apply(p: Layer) -> Layer | None:
        changed = first.apply(p)
        return None if changed is None else then(changed, lambda y: y[:, leaving])

    return apply


def _reshaped(w: NDArray) -> NDArray:
    outputs, inputs, height, width = w.shape
    return w.reshape(height, width, inputs, outputs).transpose(3, 2, 0, 1)


def _interleaved(count: int, groups: int, direction: int) -> NDArray:
    shape = (groups, count // groups) if direction else (count // groups, groups)
    return np.arange(count).reshape(shape).T.ravel()


def _layer(recorded: Recorded) -> Layer | None:
    """Over maps only, and without gaps between the values that a window sees."""
    x, get, weights = recorded.x, recorded.settings.get, kernel_and_bias(recorded)
    if x.ndim != 4 or pair(get("dilation", 1)) != (1, 1) or weights is None:
        return None
    stride = pair(get("stride", 1))
    pads = _pads(get("padding", 0), weights["weight"].shape[2:])
    ceil = recorded.class_name == "CeilConv2d"
    return Convolution(
        x=x, weights=weights, stride=stride, pads=pads, groups=get("groups", 1), ceil=ceil
    )  # fmt: skip


def _pads(padding: object, kernel: Shape) -> Pads:
    if padding == "valid":
        return symmetric((0, 0))
    if padding == "same":  # with stride 1 only; the odd one goes below and to the right
        return ((kernel[0] - 1) // 2, kernel[0] // 2), ((kernel[1] - 1) // 2, kernel[1] // 2)
    return symmetric(pair(padding))


def _to_flax(weight: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(weight, (0, 1), (-1, -2))


def _to_torch(kernel: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return len(shapes.get("kernel", ())) in (3, 4, 5)


def _terms(settings: Settings) -> int:
    return math.prod(settings["kernel_size"]) * settings["in_channels"] // settings["groups"]


def _gradient_terms(settings: Settings, result: Shape) -> dict[str, int]:
    positions = math.prod(result) // result[1] if len(result) > 1 else 1
    reach = [math.ceil(k / s) for k, s in zip(settings["kernel_size"], settings["stride"], strict=True)]
    inputs = math.prod(reach) * settings["out_channels"] // settings["groups"]
    return {"input": inputs, "weight": positions, "bias": positions}


KIND = Kind(
    name="conv",
    torch_classes=("conv.Conv1d", "conv.Conv2d", "conv.Conv3d"),
    own_classes=("CeilConv2d",),
    weights=(Weight("weight", "kernel", to_flax=_to_flax, to_torch=_to_torch), BIAS),
    in_flax=_in_flax,
    linear=True,
    terms=_terms,
    gradient_terms=_gradient_terms,
    layer=_layer,
    shape_differences=lambda flax, torch: kernel_differences(flax, torch, "input channels", grouped=True),
)
