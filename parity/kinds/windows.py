"""What convolutions, unshared convolutions and pools share: windows that slide over maps, and how they go wrong.

Maps have any number of directions behind examples and channels: (N, C, T), (N, C, H, W), (N, C, D, H, W).
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from parity.kinds.layer import Layer, Mistake, setting

Sizes = tuple[int, ...]  # one number a direction
Pads = tuple[tuple[int, int], ...]  # before and after, a direction each
Place = tuple[int, ...]  # within a window


def windows_along(size: int, kernel: int, stride: int, ceil: bool) -> int:
    """Windows along one padded side; with `ceil` the last may hang over, but never start beyond the end."""
    free = size - kernel
    count = 1 + (-(-free // stride) if ceil else free // stride)
    return count - 1 if ceil and (count - 1) * stride >= size else max(count, 0)


def patches(
    x: NDArray, kernel: Sizes, stride: Sizes, pads: Pads, ceil: bool, fill: float, dilation: Sizes = ()
) -> NDArray:
    """Every window of every map: (N, C, H', W', kernel height, kernel width), beyond the edge `fill`."""
    edges, counts, reaches = [(0, 0), (0, 0)], [], []
    gaps = dilation or (1,) * len(kernel)
    for n, side, step, (low, high), gap in zip(x.shape[2:], kernel, stride, pads, gaps, strict=True):
        reach = (side - 1) * gap + 1
        count = windows_along(n + low + high, reach, step, ceil)
        edges.append((low, max(high, (count - 1) * step + reach - n - low)))
        counts.append(count)
        reaches.append(reach)
    padded = np.pad(x, edges, constant_values=fill)
    views = sliding_window_view(padded, reaches, axis=tuple(range(2, x.ndim)))
    apart = [slice(None, None, step) for step in stride]
    inside = [slice(None, None, gap) for gap in gaps]
    views = views[(slice(None), slice(None), *apart, *inside)]
    return views[(slice(None), slice(None), *map(slice, counts))]


def symmetric(padding: Sizes) -> Pads:
    """The same padding on either side."""
    return tuple((p, p) for p in padding)


def places(kernel: Sizes) -> Iterator[Place]:
    """Every place within a window."""
    return itertools.product(*map(range, kernel))


@dataclass(frozen=True, kw_only=True, eq=False)
class Windowed(Layer):
    """A layer whose windows slide over maps (N, C, ...).

    Attributes:
        stride: steps, a direction each: down and across.
        pads: added before and after: rows above and below, columns left and right.
        ceil: whether the last window may hang over the edge.
        dilation: distances between the values that a window sees; none are 1.
    """

    stride: Sizes = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    ceil: bool = False
    dilation: Sizes = ()

    @property
    @abstractmethod
    def window(self) -> Sizes:
        """Height and width of a window."""

    @property
    def rounds_windows(self) -> bool:
        """Whether the number of windows may be rounded up."""
        return True

    @property
    def dilates(self) -> bool:
        """Whether the values that a window sees may lie apart."""
        return False

    @property
    def gaps(self) -> Sizes:
        """The dilation, written out."""
        return self.dilation or (1,) * len(self.window)

    @property
    def reach(self) -> Sizes:
        """From the first to the last value that a window sees."""
        return tuple((side - 1) * gap + 1 for side, gap in zip(self.window, self.gaps, strict=True))

    @property
    def most_padding(self) -> Sizes:
        """The most that it makes sense to add on one side, a direction each."""
        return self.reach

    def seen(self, fill: float = 0.0) -> NDArray:
        """Every window of the input, see `patches`."""
        return patches(self.x, self.window, self.stride, self.pads, self.ceil, fill, self.dilation)

    def geometry_mistakes(self) -> Iterator[Mistake]:
        """Padding, stride, dilation and rounding of the number of windows."""
        pads, stride, count = self.pads, self.stride, len(self.window)
        same = self.same_padding()
        if self.rounds_windows and self.ceil:
            yield Mistake("padding_side", "the implied zeros stand at the top and left", _mirrored)
        if self.rounds_windows:
            name = "down" if self.ceil else "up"
            yield setting("ceil_mode", f"the number of windows is rounded {name}", ceil=not self.ceil)
        # With stride 1, SAME is padding by half the window, which is tried below, but for windows of even sides.
        if set(stride) != {1} or any(low != high for low, high in same):
            yield setting("padding_same", f"padding is SAME {same}, not {pads}", pads=same, ceil=False)
        smaller = tuple(s - 1 for s in stride)
        larger = tuple(s + 1 for s in stride)
        alike = [tuple(s + more if s > 1 else 1 for s in stride) for more in (-1, 1)]  # of one direction alone
        uniform = [(n,) * count for n in (1, 2, 3, 4)]
        for steps in dict.fromkeys(
            [uniform[0], smaller, larger, *alike, *uniform[1:], *itertools.permutations(stride)]
        ):
            if min(steps) >= 1 and steps != stride:
                yield setting("stride", f"the stride is {steps}, not {stride}", stride=steps)
        if self.dilates:
            yield from self._dilation_mistakes()
        yield from self._padding_mistakes(same)

    def same_padding(self) -> Pads:
        """What `SAME` pads: for as many windows as steps fit, the odd one behind."""
        found = []
        for n, reach, step in zip(self.x.shape[2:], self.reach, self.stride, strict=True):
            total = max((-(-n // step) - 1) * step + reach - n, 0)
            found.append((total // 2, total - total // 2))
        return tuple(found)

    def _dilation_mistakes(self) -> Iterator[Mistake]:
        gaps, count = self.gaps, len(self.window)
        uniform = [(n,) * count for n in (1, 2, 3, 4)]
        for other in dict.fromkeys([*uniform, *itertools.permutations(gaps)]):
            if other == gaps:
                continue
            text = f"the dilation is {other}, not {gaps}"
            yield setting("dilation", text, dilation=other)
            # With it goes the padding that keeps the result's size.
            more = [(side - 1) * (b - a) for side, a, b in zip(self.window, gaps, other, strict=True)]
            pads = tuple((low + m // 2, high + m - m // 2) for (low, high), m in zip(self.pads, more, strict=True))
            if min(itertools.chain(*pads)) >= 0:
                yield setting("dilation", f"{text}, and padding is {pads}, not {self.pads}", dilation=other, pads=pads)

    def _padding_mistakes(self, same: Pads) -> Iterator[Mistake]:
        pads = self.pads
        first = pads[0][0]
        halves = tuple(((reach - 1) // 2, reach // 2) for reach in self.reach)
        for p in dict.fromkeys((0, first - 1, first + 1, first + 2, (self.window[0] - 1) // 2)):
            if self._sensible(symmetric((p,) * len(pads))):
                text = f"padding is {p}, not {_words(pads)}"
                yield setting("padding", text, pads=symmetric((p,) * len(pads)))
        for other in dict.fromkeys([halves, *itertools.permutations(pads)]):
            if self._sensible(other) and (len(set(pads)) > 1 or len(set(other)) > 1):
                yield setting("padding", f"padding is {other}, not {pads}", pads=other)
        for moved in dict.fromkeys(self._moved(pads, same)):
            low, high = moved[0]
            if self._sensible(moved):
                text = f"padding is {low} before and {high} after, not {_words(pads)}"
                yield setting("padding_side", text, pads=moved)

    def _sensible(self, pads: Pads) -> bool:
        """Whether somebody might pad like that for what is wanted."""
        limits = zip(pads, self.most_padding, strict=True)
        return pads != self.pads and all(min(sides) >= 0 and max(sides) <= most for sides, most in limits)

    def _moved(self, pads: Pads, same: Pads) -> Iterator[Pads]:
        """Paddings that aren't the same before and after."""
        top = pads[0][0]
        for low, high in ((0, 1), (1, 0), (-1, 1), (1, -1)):
            yield ((top + low, top + high),) * len(pads)
            yield tuple((a + low, b + high) for a, b in pads)
        for part in (0, 1):  # all of it on one side
            yield tuple((a + b, 0) if part else (0, a + b) for a, b in pads)
            yield tuple((a + b, 0) if part else (0, a + b) for a, b in same)
            yield tuple((reach - 1, 0) if part else (0, reach - 1) for reach in self.reach)
        yield tuple((b, a) for a, b in pads)

    def spread(self, shares: Iterator[tuple[Place, NDArray]], overwrite: bool = False) -> NDArray:
        """Put shares (place within the window, array of the output's shape) back at their pixels."""
        x = self.x
        room = [n + 64 + sum(pad) for n, pad in zip(x.shape[2:], self.pads, strict=True)]
        total = np.zeros((*x.shape[:2], *room))
        for place, share in shares:
            starts = [i * gap for i, gap in zip(place, self.gaps, strict=True)]
            steps = zip(starts, share.shape[2:], self.stride, strict=True)
            there = (..., *(slice(start, start + n * step, step) for start, n, step in steps))
            if overwrite:
                total[there] = np.where(share != 0, share, total[there])
            else:
                total[there] += share
        inside = (slice(low, low + n) for n, (low, _) in zip(x.shape[2:], self.pads, strict=True))
        return total[(..., *inside)]


def _words(pads: Pads) -> str:
    """One number, where it is the same everywhere."""
    return str(pads[0][0]) if len(set(itertools.chain(*pads))) == 1 else str(pads)


def _mirrored(layer: Layer) -> Layer | None:
    if not isinstance(layer, Windowed):
        return None
    pads = []
    for axis, n in enumerate(layer.x.shape[2:]):
        (low, high), reach, stride = layer.pads[axis], layer.reach[axis], layer.stride[axis]
        count = windows_along(n + low + high, reach, stride, True)
        over = max((count - 1) * stride + reach - n - low - high, 0)
        pads.append((low + over, high))
    return replace(layer, pads=tuple(pads), ceil=False)
