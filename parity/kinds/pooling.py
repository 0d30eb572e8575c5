"""Pools: the maximum or the average of each window, and averages over a fixed number of windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import by
from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Function, Layer, Mistake, Recorded, Settings, WrongGradient, setting, sizes
from parity.kinds.windows import Sizes, Windowed, patches, places, symmetric


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool(Windowed):
    """Maximum or average of each window.

    Attributes:
        kernel: height and width of a window.
        maximum: whether it is the maximum.
        fill: of a maximum, what stands beyond the edge.
        area: of an average, by which area sums are divided, a key of `_AREAS`.
    """

    kernel: Sizes
    maximum: bool
    fill: float = -np.inf
    area: str = "window"

    @property
    def window(self) -> Sizes:
        """Height and width of a window."""
        return self.kernel

    @property
    def most_padding(self) -> Sizes:
        """A pool padded by more than half its window would look at nothing but padding."""
        return tuple(reach // 2 for reach in self.reach)

    @property
    def may_get_a_relu(self) -> bool:
        """A maximum commutes with it, so that one behind is one before."""
        return not self.maximum

    def forward(self) -> NDArray:
        """One value a window."""
        if self.maximum:
            return self.seen(self.fill).max(axis=self._within)
        return self.seen().sum(axis=self._within) / self._divisor()

    @property
    def _within(self) -> tuple[int, ...]:
        """Axes of the places within windows, behind those of the windows."""
        return tuple(range(self.x.ndim, 2 * self.x.ndim - 2))

    def _divisor(self) -> NDArray | float:
        """By what the sum of each window is divided."""
        if self.area in ("window", "nothing"):
            return math.prod(self.kernel) if self.area == "window" else 1.0
        ones, pads = np.ones_like(self.x[:1, :1]), self.pads
        if self.area == "padded":
            ones, pads = np.pad(ones, ((0, 0), (0, 0), *pads), constant_values=1), symmetric((0,) * len(pads))
        inside = patches(ones, self.kernel, self.stride, pads, self.ceil, 0.0).sum(axis=self._within)
        return np.maximum(inside, 1)

    def input_gradient(self, g: NDArray) -> NDArray:
        """To the first maximum of each window, or a share to each of its pixels."""
        return self._to_maxima(g) if self.maximum else self._to_all(g)

    def _to_maxima(self, g: NDArray, *, ties: str = "first", overwrite: bool = False) -> NDArray:
        seen = self.seen(self.fill)
        flat = seen.reshape(*seen.shape[: self.x.ndim], -1)
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
        return self.spread(((place, g * share[..., k]) for k, place in enumerate(places(self.kernel))), overwrite)

    def _to_all(self, g: NDArray, *, divided: bool = True) -> NDArray:
        share = g / self._divisor() if divided else g
        return self.spread((place, share) for place in places(self.kernel))

    def own_mistakes(self) -> Iterator[Mistake]:
        """Geometry, the window's size, the other kind of pool, what stands beyond the edge."""
        kernel, count = self.kernel, len(self.kernel)
        yield from self.geometry_mistakes()
        uniform = [(side,) * count for side in (kernel[0] - 1, kernel[0] + 1, kernel[0] + 2)]
        alike = [tuple(side + more if side > 1 else 1 for side in kernel) for more in (-1, 1, 2)]
        for window in dict.fromkeys([*alike, *uniform, *itertools.permutations(kernel)]):
            if min(window) < 1 or window == kernel:
                continue
            text = f"the window is {by(window)}, not {by(kernel)}"
            yield setting("pool_size", text, kernel=window)
            nothing = symmetric((0,) * count)
            if nothing != self.pads:
                yield setting("pool_size", f"{text}, and nothing is padded", kernel=window, pads=nothing)
            same = replace(self, kernel=window).same_padding()
            if same != self.pads:
                text_same = f"{text}, and padding is SAME {same}"
                yield setting("pool_size", text_same, kernel=window, pads=same, ceil=False)
                if not self.maximum and self.area != "map":
                    text_same += ", by the clipped area"
                    yield setting("pool_size", text_same, kernel=window, pads=same, ceil=False, area="map")
            if self.stride == kernel:
                yield setting("pool_size", f"{text}, and so is the stride", kernel=window, stride=window)
        other = "an average" if self.maximum else "a maximum"
        for area in ("map", "window"):
            yield setting("pool_kind", f"the pool is {other}", maximum=not self.maximum, area=area)
        if self.maximum:
            text = f"the pool is {other}, divided by the full area of the window"
            yield setting("pool_kind", text, maximum=False, clipped=False)
        if self.maximum:
            yield setting("pool_zero_padding", "beyond the edge stand zeros, not -inf", fill=0.0)
            for p in (1, kernel[0] // 2):
                yield setting("pool_zero_padding", f"padded by {p} zeros", fill=0.0, pads=symmetric((p,) * count))
            return
        for area, words in _AREAS.items():
            if area != self.area:
                yield setting("pool_area", f"sums are divided by {words}", area=area)
        yield setting("pool_area", "sums are not divided", area="nothing")

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
        for area in _AREAS:
            if area != self.area:
                other = replace(self, area=area)._to_all(g)
                yield WrongGradient("gradient_area", "it is divided by the other area than forward", other)
        text = "it is not divided by the window's area"
        yield WrongGradient("gradient_area", text, self._to_all(g, divided=False))


_AREAS = {
    "window": "the full area of the window",
    "map": "the clipped area of the window",
    "padded": "the area of the window within the padded map",
}


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
    """PyTorch's AdaptiveAvgPool: window i of m over n pixels is [floor(i n / m), ceil((i + 1) n / m)).

    Attributes:
        size: of the result: height and width.
    """

    size: Sizes

    def forward(self) -> NDArray:
        """The mean of each window."""
        x = self.x
        for axis, m in zip(range(2, x.ndim), self.size, strict=True):
            n = x.shape[axis]
            parts = [np.take(x, range(i * n // m, -(-(i + 1) * n // m)), axis).mean(axis) for i in range(m)]
            x = np.stack(parts, axis)
        return x

    def own_mistakes(self) -> Iterator[Mistake]:
        """Another size, no pool at all, windows of one size."""
        smaller, larger = (tuple(n + more for n in self.size) for more in (-1, 1))
        for size in (smaller, larger, (1,) * len(self.size)):
            yield setting("pool_size", f"the output is {size}, not {self.size}", size=size)
        text = "the map is not pooled to the fixed size"
        yield Mistake("adaptive_missing", text, lambda p: Function.of(p, lambda x: x))
        yield Mistake("adaptive_windows", "equal windows with a fixed stride are averaged", _equal_windows)


def _equal_windows(p: Layer) -> Layer | None:
    if not isinstance(p, AdaptiveAverage):
        return None
    whole = list(zip(p.x.shape[2:], p.size, strict=True))
    steps = tuple(n // m for n, m in whole)
    if min(steps) < 1:
        return p
    window = tuple(n - (m - 1) * step for (n, m), step in zip(whole, steps, strict=True))
    pads = symmetric((0,) * len(window))
    return Pool(x=p.x, after=p.after, kernel=window, stride=steps, pads=pads, maximum=False)


def _layer(recorded: Recorded) -> Layer | None:
    get, name, count = recorded.settings.get, recorded.class_name, recorded.x.ndim - 2
    if count != int(name[-2]):  # one example alone, without an axis for examples
        return None
    if name.startswith("AdaptiveAvgPool"):
        size = get("output_size")
        return None if size is None else AdaptiveAverage(x=recorded.x, size=sizes(size, count))
    kernel = get("kernel_size")
    if kernel is None or get("divisor_override") is not None:
        return None
    clipped, gaps = name == "ClippedAvgPool2d", sizes(get("dilation", 1), count)
    counted = "padded" if get("ceil_mode") else "window"
    return Pool(
        x=recorded.x,
        kernel=sizes(kernel, count),
        stride=sizes(get("stride") or kernel, count),
        pads=symmetric(sizes(get("padding", 0), count)),
        ceil=get("ceil_mode", clipped),
        maximum=name.startswith("MaxPool"),
        area="map" if clipped or not get("count_include_pad", True) else counted,
        dilation=() if set(gaps) == {1} else gaps,
    )


def _settings(args: list[Any]) -> Settings | None:
    """Kernel, stride, padding and a maximum's dilation are lists, `ceil_mode` is the first truth value."""
    lists = [a for a in args if isinstance(a, list)]
    truths = [a for a in args if isinstance(a, bool)]
    if not lists:
        return None  # sizes recorded in another form: no cause is named rather than a wrong one
    return {
        "kernel_size": lists[0],
        "stride": (lists[1] if len(lists) > 1 else []) or lists[0],
        "padding": lists[2] if len(lists) > 2 else 0,
        "dilation": lists[3] if len(lists) > 3 else 1,
        "ceil_mode": truths[0] if truths else False,
        "count_include_pad": truths[1] if len(truths) > 1 else True,
        "divisor_override": next((a for a in args if isinstance(a, int) and not isinstance(a, bool)), None),
    }


def _output_size(args: list[Any]) -> Settings | None:
    return {"output_size": args[0]} if args else None


KIND = Kind(
    name="pool",
    torch_classes=tuple(f"pooling.{name}Pool{n}d" for name in ("Max", "Avg", "AdaptiveAvg") for n in (1, 2, 3)),
    own_classes=("ClippedAvgPool2d",),
    layer=_layer,
    operations={
        **{f"max_pool{n}d_with_indices": Operation("pool", f"MaxPool{n}d", _settings) for n in (1, 2, 3)},
        **{f"max_pool{n}d": Operation("pool", f"MaxPool{n}d", _settings) for n in (1, 2, 3)},
        **{f"avg_pool{n}d": Operation("pool", f"AvgPool{n}d", _settings) for n in (1, 2, 3)},
        **{
            f"{name}adaptive_avg_pool{n}d": Operation("adaptive pool", f"AdaptiveAvgPool{n}d", _output_size)
            for name in ("", "_")
            for n in (1, 2, 3)
        },
    },
)
