"""Pools: the maximum or the average of each window, and averages over a fixed number of windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Function, Layer, Mistake, Recorded, Settings, WrongGradient, pair, setting
from parity.kinds.windows import Pair, Windowed, patches, symmetric


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool(Windowed):
    """Maximum or average of each window.

    Attributes:
        kernel: height and width of a window.
        maximum: whether it is the maximum.
        fill: of a maximum, what stands beyond the edge.
        clipped: of an average, whether sums are divided by the part of the window inside the map, not by all of it.
    """

    kernel: Pair
    maximum: bool
    fill: float = -np.inf
    clipped: bool = False

    @property
    def window(self) -> Pair:
        """Height and width of a window."""
        return self.kernel

    @property
    def most_padding(self) -> int:
        """A pool padded by more than half its window would look at nothing but padding."""
        return self.kernel[0] // 2

    @property
    def may_get_a_relu(self) -> bool:
        """A maximum commutes with it, so that one behind is one before."""
        return not self.maximum

    def forward(self) -> NDArray:
        """One value a window."""
        if self.maximum:
            return self.seen(self.fill).max(axis=(4, 5))
        total = self.seen().sum(axis=(4, 5))
        return total / np.maximum(self._area(), 1) if self.clipped else total / math.prod(self.kernel)

    def _area(self) -> NDArray:
        """Pixels of the map in each window."""
        ones = np.ones_like(self.x[:1, :1])
        return patches(ones, self.kernel, self.stride, self.pads, self.ceil, 0.0).sum(axis=(4, 5))

    def input_gradient(self, g: NDArray) -> NDArray:
        """To the first maximum of each window, or a share to each of its pixels."""
        return self._to_maxima(g) if self.maximum else self._to_all(g)

    def _to_maxima(self, g: NDArray, *, ties: str = "first", overwrite: bool = False) -> NDArray:
        seen = self.seen(self.fill)
        flat = seen.reshape(*seen.shape[:4], -1)
        is_top = flat == flat.max(-1, keepdims=True)
        if ties == "first":
            share = np.arange(flat.shape[-1]) == is_top.argmax(-1)[..., None]
        elif ties == "last":
            last = flat.shape[-1] - 1 - is_top[..., ::-1].argmax(-1)
            share = np.arange(flat.shape[-1]) == last[..., None]
        elif ties == "pairs":
            share = _halved(flat)
        else:
            share = is_top / is_top.sum(-1, keepdims=True) if ties == "shared" else is_top
        width = self.kernel[1]
        shares = ((k // width, k % width, g * share[..., k]) for k in range(flat.shape[-1]))
        return self.spread(shares, overwrite)

    def _to_all(self, g: NDArray, *, divided: bool = True) -> NDArray:
        area = self._area() if self.clipped else math.prod(self.kernel)
        share = g / area if divided else g
        height, width = self.kernel
        return self.spread((i, j, share) for i in range(height) for j in range(width))

    def own_mistakes(self) -> Iterator[Mistake]:
        """Geometry, the window's size, the other kind of pool, what stands beyond the edge."""
        kernel = self.kernel
        yield from self.geometry_mistakes()
        for side in (kernel[0] - 1, kernel[0] + 1, kernel[0] + 2):
            if side >= 1:
                text = f"the window is {side}x{side}, not {kernel[0]}x{kernel[1]}"
                yield setting("pool_size", text, kernel=(side, side))
        other = "an average" if self.maximum else "a maximum"
        yield setting("pool_kind", f"the pool is {other}", maximum=not self.maximum, clipped=True)
        if self.maximum:
            text = f"the pool is {other}, divided by the full area of the window"
            yield setting("pool_kind", text, maximum=False, clipped=False)
        if self.maximum:
            yield setting("pool_zero_padding", "beyond the edge stand zeros, not -inf", fill=0.0)
            for p in (1, kernel[0] // 2):
                yield setting("pool_zero_padding", f"padded by {p} zeros", fill=0.0, pads=((p, p), (p, p)))
        else:
            text = f"sums are divided by the {'full' if self.clipped else 'clipped'} area of the window"
            yield setting("pool_area", text, clipped=not self.clipped)

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """At ties and overlaps of a maximum, and what an average is divided by."""
        if self.maximum:
            for ties, who in (
                ("all", "every maximum of a window gets the gradient"),
                ("last", "the last maximum of a window gets the gradient"),
                ("shared", "the maxima of a window share the gradient"),
                ("pairs", "equal maxima halve the gradient pair by pair"),
            ):
                yield WrongGradient("gradient_ties", who, self._to_maxima(g, ties=ties))
            text = "overlapping windows overwrite each other"
            yield WrongGradient("gradient_overlap", text, self._to_maxima(g, overwrite=True))
            return
        other = replace(self, clipped=not self.clipped)
        yield WrongGradient("gradient_area", "it is divided by the other area than forward", other._to_all(g))
        text = "it is not divided by the window's area"
        yield WrongGradient("gradient_area", text, self._to_all(g, divided=False))


def _halved(flat: NDArray) -> NDArray:
    """Shares of the last axis where the maximum is taken of two at a time, and equal ones get a half each."""
    share, best = np.zeros(flat.shape), np.full(flat.shape[:-1], -np.inf)
    for k in range(flat.shape[-1]):
        own = np.where(flat[..., k] > best, 1.0, np.where((flat[..., k] == best) & (k > 0), 0.5, 0.0))
        own = np.where(k == 0, 1.0, own)
        share *= (1 - own)[..., None]
        share[..., k] = own
        best = np.maximum(best, flat[..., k])
    return share


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptiveAverage(Layer):
    """PyTorch's AdaptiveAvgPool2d: window i of m over n pixels is [floor(i n / m), ceil((i + 1) n / m)).

    Attributes:
        size: height and width of the result.
    """

    size: Pair

    def forward(self) -> NDArray:
        """The mean of each window."""
        x = self.x
        for axis, m in zip((2, 3), self.size, strict=True):
            n = x.shape[axis]
            parts = [np.take(x, range(i * n // m, -(-(i + 1) * n // m)), axis).mean(axis) for i in range(m)]
            x = np.stack(parts, axis)
        return x

    def own_mistakes(self) -> Iterator[Mistake]:
        """Another size, no pool at all, windows of one size."""
        height, width = self.size
        for size in ((height - 1, width - 1), (height + 1, width + 1), (1, 1)):
            yield setting("pool_size", f"the output is {size}, not {self.size}", size=size)
        text = "the map is not pooled to the fixed size"
        yield Mistake("adaptive_missing", text, lambda p: Function.of(p, lambda x: x))
        yield Mistake("adaptive_windows", "equal windows with a fixed stride are averaged", _equal_windows)


def _equal_windows(p: Layer) -> Layer | None:
    if not isinstance(p, AdaptiveAverage):
        return None
    sizes = list(zip(p.x.shape[2:], p.size, strict=True))
    steps = [n // m for n, m in sizes]
    if min(steps) < 1:
        return p
    height, width = (n - (m - 1) * step for (n, m), step in zip(sizes, steps, strict=True))
    return Pool(x=p.x, after=p.after, kernel=(height, width), stride=(steps[0], steps[1]), maximum=False)


def _layer(recorded: Recorded) -> Layer | None:
    get, name = recorded.settings.get, recorded.class_name
    if name == "AdaptiveAvgPool2d":
        size = get("output_size")
        return None if size is None else AdaptiveAverage(x=recorded.x, size=pair(size))
    kernel = get("kernel_size")
    if kernel is None or pair(get("dilation", 1)) != (1, 1):
        return None
    clipped = name == "ClippedAvgPool2d"
    return Pool(
        x=recorded.x,
        kernel=pair(kernel),
        stride=pair(get("stride") or kernel),
        pads=symmetric(pair(get("padding", 0))),
        ceil=get("ceil_mode", clipped),
        maximum=name == "MaxPool2d",
        clipped=clipped,
    )


def _settings(args: list[Any]) -> Settings | None:
    """Kernel, stride and padding are lists, `ceil_mode` is the first truth value."""
    lists = [a for a in args if isinstance(a, list)]
    if not lists:
        return None  # sizes recorded in another form: no cause is named rather than a wrong one
    return {
        "kernel_size": lists[0],
        "stride": lists[1] if len(lists) > 1 else lists[0],
        "padding": lists[2] if len(lists) > 2 else 0,
        "ceil_mode": next((a for a in args if isinstance(a, bool)), False),
    }


def _average_settings(args: list[Any]) -> Settings | None:
    settings = _settings(args)
    # Whether padding counts is a setting of its own.
    return settings if settings is not None and settings["padding"] in (0, [0, 0]) else None


_MAXIMUM = Operation("pool", "MaxPool2d", _settings)

KIND = Kind(
    name="pool",
    torch_classes=("pooling.MaxPool2d", "pooling.AvgPool2d", "pooling.AdaptiveAvgPool2d"),
    own_classes=("ClippedAvgPool2d",),
    layer=_layer,
    operations={
        "max_pool2d_with_indices": _MAXIMUM,
        "max_pool2d": _MAXIMUM,
        "avg_pool2d": Operation("pool", "AvgPool2d", _average_settings),
        "_adaptive_avg_pool2d": Operation("adaptive pool", "AdaptiveAvgPool2d", lambda a: {"output_size": a[0]}),
    },
)
