"""Transposed convolutions: kernels I O H W in PyTorch, H W I O and turned round in Flax.

PyTorch's are gradients of convolutions, which turn the kernel round; Flax's, unless `transpose_kernel` is set, slide it
as it is over the spread-out input. With it they hold the kernel of the convolution whose gradient they are, as PyTorch
does: H W O I, not turned round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import Multiplied, kernel_and_bias, kernel_differences, window_mistakes, wrong_weight
from parity.kinds.kind import BIAS, Kind, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, setting, sizes
from parity.kinds.layouts import Layout
from parity.kinds.windows import Place, Sizes, places


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposedConvolution(Multiplied):
    """Each value of maps (N, I, ...) puts the kernel (I, O / groups, ...) times itself into the result.

    Attributes:
        stride: how far apart neighbours put theirs, a direction each.
        padding: what is cut off before: rows at the top, columns at the left.
        size: of the result: height and width.
        groups: into which inputs and outputs are split.
    """

    stride: Sizes
    padding: Sizes
    size: Sizes
    groups: int = 1

    def forward(self) -> NDArray:
        """Put down, then cut."""
        groups = list(zip(np.split(self.x, self.groups, 1), np.split(self.weight, self.groups, 0), strict=True))
        out = np.zeros((len(self.x), self.groups * self.weight.shape[1], *self._uncut()))
        for place in places(self.weight.shape[2:]):
            shares = [np.tensordot(x, kernel[(..., *place)], axes=(1, 0)) for x, kernel in groups]
            out[self._there(place)] += np.moveaxis(np.concatenate(shares, axis=-1), -1, 1)
        out = out[self._kept()]
        offset = self.offset()
        return out if offset is None else out + offset

    def _uncut(self) -> Sizes:
        """Size of the result before it is cut."""
        whole = zip(self.x.shape[2:], self.stride, self.weight.shape[2:], self.padding, self.size, strict=True)
        return tuple(max((n - 1) * step + side, start + size) for n, step, side, start, size in whole)

    def _there(self, place: Place) -> tuple[Any, ...]:
        """Where the products with this place of the kernel go."""
        steps = zip(place, self.x.shape[2:], self.stride, strict=True)
        return (..., *(slice(i, i + n * step, step) for i, n, step in steps))

    def _kept(self) -> tuple[Any, ...]:
        """What isn't cut off."""
        return (..., *(slice(start, start + size) for start, size in zip(self.padding, self.size, strict=True)))

    def offset(self) -> NDArray | None:
        """The bias, once an output."""
        return None if self.bias is None else self.bias.reshape(-1, *[1] * (self.x.ndim - 2))

    def input_gradient(self, g: NDArray) -> NDArray:
        """What the kernel sees from each place."""
        parts = []
        for kernel, of_group in zip(np.split(self.weight, self.groups, 0), np.split(g, self.groups, 1), strict=True):
            sent = (
                np.moveaxis(np.tensordot(seen, kernel[(..., *place)], axes=(1, 1)), -1, 1)
                for place, seen in self._seen(of_group)
            )
            parts.append(sum(sent, np.zeros(())))
        return np.concatenate(parts, axis=1)

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples and places."""
        if name == "bias":
            return g.sum((0, *range(2, g.ndim)))
        if name != "weight":
            return None
        found, summed = np.zeros(self.weight.shape), (0, *range(2, g.ndim))
        groups = zip(
            np.split(found, self.groups, 0), np.split(self.x, self.groups, 1), np.split(g, self.groups, 1), strict=True
        )
        for part, x, of_group in groups:
            for place, seen in self._seen(of_group):
                part[(..., *place)] = np.tensordot(x, seen, axes=(summed, summed))
        return found

    def _seen(self, g: NDArray) -> Iterator[tuple[Place, NDArray]]:
        """For each place in the kernel, where in the result's gradient every input's product went."""
        uncut = np.zeros((*g.shape[:2], *self._uncut()))
        uncut[self._kept()] = g
        for place in places(self.weight.shape[2:]):
            yield place, uncut[self._there(place)]

    def own_mistakes(self) -> Iterator[Mistake]:
        """Flipping, channels, bias, and what is cut off."""
        yield from window_mistakes(len(self.size))
        text = "input and output channels of the kernel are exchanged"
        yield wrong_weight("kernel_io_exchanged", text, lambda w: w.swapaxes(0, 1))
        yield from self.bias_mistakes()
        for more in (1, -1, 2, -2):
            moved = tuple(start + more for start in self.padding)
            if min(moved) >= 0:
                text = f"the result begins {abs(more)} {'later' if more > 0 else 'earlier'} in the uncut one"
                yield setting("padding", text, padding=moved)
                # With as much less, or more, cut off behind as before.
                size = tuple(n - 2 * more for n in self.size)
                if min(size) > 0:
                    text = f"padding is {moved}, not {self.padding}, before and behind"
                    yield setting("padding", text, padding=moved, size=size)
        nothing = (0,) * len(self.padding)
        if self.padding != nothing:
            text = "nothing is cut off"
            whole = replace(self, size=nothing)._uncut()
            yield setting("padding", text, padding=nothing, size=whole)
        for more in (1, -1):
            size = tuple(n + more for n in self.size)
            if min(size) > 0:
                text = f"output_padding is {abs(more)} {'more' if more > 0 else 'less'}"
                yield setting("output_padding", text, size=size)


def _layer(recorded: Recorded) -> Layer | None:
    weights, settings = kernel_and_bias(recorded), recorded.settings
    if weights is None or recorded.x.ndim != weights["weight"].ndim:
        return None
    if not isinstance(settings.get("padding"), (list, tuple)) or set(settings["dilation"]) != {1}:
        return None
    window = weights["weight"].shape[2:]
    usual = {"stride": 1, "padding": 0, "output_padding": 0}
    stride, padding, more = (sizes(settings.get(name, value), len(window)) for name, value in usual.items())
    whole = zip(recorded.x.shape[2:], stride, padding, window, more, strict=True)
    return TransposedConvolution(
        x=recorded.x,
        weights=weights,
        stride=stride,
        padding=padding,
        size=tuple((n - 1) * s - 2 * p + k + m for n, s, p, k, m in whole),
        groups=settings.get("groups", 1),
    )


def _to_flax(weight: NDArray, layout: Layout | None) -> NDArray:
    return np.flip(np.moveaxis(weight, (0, 1), (-2, -1)), tuple(range(weight.ndim - 2)))


def _to_torch(kernel: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(np.flip(kernel, tuple(range(kernel.ndim - 2))), (-2, -1), (0, 1))


def _as_gradient(weight: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(weight, (0, 1), (-1, -2))


def _from_gradient(kernel: NDArray, layout: Layout | None) -> NDArray:
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def stored(module: object, shapes: Shapes) -> tuple[str, Shapes]:
    """The kind whose weights lie as this Flax layer's do, and its shapes as those of `KIND`; empty where that does."""
    kernel = shapes.get("kernel")
    if kernel is None or getattr(module, "transpose_kernel", False) is not True:
        return "", shapes
    return OF_TRANSPOSED_KERNEL.name, {**shapes, "kernel": (*kernel[:-2], kernel[-1], kernel[-2])}


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
# With `transpose_kernel`: what differs is where the weights lie in Flax.
OF_TRANSPOSED_KERNEL = replace(
    KIND,
    name="transposed_conv_of_transposed_kernel",
    torch_classes=(),
    in_flax=lambda class_name, shapes: False,
    weights=(Weight("weight", "kernel", to_flax=_as_gradient, to_torch=_from_gradient), BIAS),
)
