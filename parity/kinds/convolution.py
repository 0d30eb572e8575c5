"""Convolutions: 1-, 2- and 3-dimensional, with groups and dilation; kernels O I H W in PyTorch, H W I O in Flax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import (
    OutputsFirst,
    kernel_and_bias,
    kernel_differences,
    reordered_outputs,
    window_mistakes,
    wrong_weight,
)
from parity.kinds.kind import BIAS, Kind, Shape, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, Settings, WrongGradient, reordered_input, setting, sizes, then
from parity.kinds.layouts import Layout
from parity.kinds.windows import Pads, Place, Sizes, Windowed, places, symmetric


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(OutputsFirst, Windowed):
    """Cross-correlation of maps (N, C, ...) with kernels (O, C / groups, ...), in any number of directions."""

    @property
    def window(self) -> Sizes:
        """The kernel's height and width."""
        return self.weight.shape[2:]

    @property
    def dilates(self) -> bool:
        """They do."""
        return True

    def forward(self) -> NDArray:
        """One product a group."""
        parts, ndim = [], self.x.ndim
        inputs = np.split(self.seen(), self.groups, axis=1)
        summed = (1, *range(ndim, 2 * ndim - 2)), (1, *range(2, ndim))
        for seen, kernel in zip(inputs, np.split(self.weight, self.groups, axis=0), strict=True):
            parts.append(np.moveaxis(np.tensordot(seen, kernel, axes=summed), -1, 1))
        out = np.concatenate(parts, axis=1)
        offset = self.offset()
        return out if offset is None else out + offset

    def input_gradient(self, g: NDArray) -> NDArray:
        """Each place in the window sends its product back to where it looked."""
        return self._input_gradient(g, self.weight)

    def _input_gradient(self, g: NDArray, weight: NDArray) -> NDArray:
        groups = list(zip(np.split(g, self.groups, 1), np.split(weight, self.groups, 0), strict=True))

        def shares() -> Iterator[tuple[Place, NDArray]]:
            for place in places(weight.shape[2:]):
                parts = [np.tensordot(part, kernel[(..., *place)], axes=(1, 0)) for part, kernel in groups]
                yield place, np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)

        return self.spread(shares())

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples and positions."""
        if name == "bias":
            return g.sum((0, *range(2, g.ndim)))
        if name != "weight":
            return None
        summed = (0, *range(2, g.ndim))
        groups = zip(np.split(g, self.groups, 1), np.split(self.seen(), self.groups, 1), strict=True)
        return np.concatenate([np.tensordot(out, x, axes=(summed, summed)) for out, x in groups])

    def geometry_mistakes(self) -> Iterator[Mistake]:
        """Those of any window; and causal padding, also where code before has put the zeros around a map."""
        yield from self._causal_mistakes()
        bare = self._bare()
        for mistake in bare._causal_mistakes() if bare is not None else ():
            yield mistake._replace(apply=lambda p, apply=mistake.apply: _on_bare(p, apply))
        yield from super().geometry_mistakes()

    def _causal_mistakes(self) -> Iterator[Mistake]:
        """Of time, the first direction: padded before by what a window reaches back, or on both sides for the same."""
        pads, same = self.pads, self.same_padding()
        causal = ((self.reach[0] - 1, 0), *same[1:])
        if pads == same != causal:
            yield setting("padding_causal", f"padding is causal {causal}, not SAME {same}", pads=causal)
        if pads == causal != same:
            yield setting("padding_causal", f"padding is SAME {same}, not causal {causal}", pads=same)

    def _bare(self) -> Convolution | None:
        """The same function of the map without the zeros around it; None if there are none, or nothing else."""
        inside, pads = [slice(None), slice(None)], []
        for axis, (before, after) in enumerate(self.pads, 2):
            some = np.flatnonzero(self.x.any(tuple(a for a in range(self.x.ndim) if a != axis)))
            if not len(some):
                return None
            first, last = int(some[0]), int(some[-1]) + 1
            inside.append(slice(first, last))
            pads.append((before + first, after + self.x.shape[axis] - last))
        return None if tuple(pads) == self.pads else replace(self, x=self.x[tuple(inside)], pads=tuple(pads))

    def own_mistakes(self) -> Iterator[Mistake]:
        """Layouts of the kernel, groups, bias, geometry."""
        yield from window_mistakes(len(self.window))
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
        yield from self._edge_mistakes()

    def _edge_mistakes(self) -> Iterator[Mistake]:
        """Something else than zeros beyond the edge, as `padding_mode` says, or as `CIRCULAR` does."""
        sides = [(0, 0), (0, 0), *self.pads]
        for mode, words in (("wrap", "the other end"), ("reflect", "a mirror image"), ("edge", "the edge's values")):

            def filled(p: Layer, mode: str = mode) -> Layer:
                x = np.pad(p.x, sides, mode=mode)  # type: ignore[call-overload]
                return replace(p, x=x, pads=symmetric((0,) * len(self.pads)))

            if any(map(sum, sides)):
                yield Mistake("pad_mode", f"beyond the edge stands {words}, not zeros", filled)

    def _io_exchanged(self, w: NDArray) -> NDArray | None:
        halves = np.split(w, self.groups, axis=0)
        return np.concatenate([h.swapaxes(0, 1) for h in halves]) if halves[0].shape[0] == w.shape[1] else None

    def _transposed(self, w: NDArray) -> NDArray | None:
        exchanged = self._io_exchanged(w)
        return None if exchanged is None else exchanged.transpose(0, 1, *range(exchanged.ndim - 1, 1, -1))

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
        flipped = np.flip(weight, tuple(range(2, weight.ndim)))
        yield WrongGradient("gradient_flip", "the kernel is flipped", self._input_gradient(g, flipped))
        if weight.ndim > 3 and weight.shape[2] == weight.shape[3]:
            transposed = self._input_gradient(g, weight.swapaxes(2, 3))
            yield WrongGradient("gradient_hw", "the kernel is transposed", transposed)
        if self.groups > 1:
            order = np.roll(np.arange(weight.shape[0]), weight.shape[0] // self.groups)
            exchanged = self._input_gradient(g, weight[order])
            yield WrongGradient("gradient_groups", "the groups are exchanged", exchanged)


def _on_bare(layer: Layer, apply: Callable[[Layer], Layer | None]) -> Layer | None:
    """A mistake made where the zeros around the map are the layer's own."""
    bare = layer._bare() if isinstance(layer, Convolution) else None
    return None if bare is None else apply(bare)


def _both(first: Mistake, leaving: NDArray) -> Callable[[Layer], Layer | None]:
    def apply(p: Layer) -> Layer | None:
        changed = first.apply(p)
        return None if changed is None else then(changed, lambda y: y[:, leaving])

    return apply


def _reshaped(w: NDArray) -> NDArray:
    outputs, inputs, *window = w.shape
    return np.moveaxis(w.reshape(*window, inputs, outputs), (-1, -2), (0, 1))


def _interleaved(count: int, groups: int, direction: int) -> NDArray:
    shape = (groups, count // groups) if direction else (count // groups, groups)
    return np.arange(count).reshape(shape).T.ravel()


def _layer(recorded: Recorded) -> Layer | None:
    """With zeros beyond the edge, and examples along an axis of their own."""
    x, get, weights = recorded.x, recorded.settings.get, kernel_and_bias(recorded)
    if weights is None or x.ndim != weights["weight"].ndim or get("padding_mode", "zeros") != "zeros":
        return None
    count = x.ndim - 2
    gaps = sizes(get("dilation", 1), count)
    return Convolution(
        x=x,
        weights=weights,
        stride=sizes(get("stride", 1), count),
        pads=_pads(get("padding", 0), weights["weight"].shape[2:], gaps),
        groups=get("groups", 1),
        ceil=recorded.class_name == "CeilConv2d",
        dilation=() if set(gaps) == {1} else gaps,
    )


def _pads(padding: object, kernel: Shape, gaps: Sizes) -> Pads:
    if padding == "valid":
        return symmetric((0,) * len(kernel))
    if padding == "same":  # with stride 1 only; the odd one goes below and to the right
        totals = [(side - 1) * gap for side, gap in zip(kernel, gaps, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return symmetric(sizes(padding, len(kernel)))


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
