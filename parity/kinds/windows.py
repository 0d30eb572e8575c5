"""What convolutions, unshared convolutions and pools share: windows that slide over maps, and how they go wrong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from parity.kinds.layer import Layer, Mistake, setting

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]  # (top, bottom), (left, right)


def windows_along(size: int, kernel: int, stride: int, ceil: bool) -> int:
    """Windows along one padded side; with `ceil` the last may hang over, but never start beyond the end."""
    free = size - kernel
    count = 1 + (-(-free // stride) if ceil else free // stride)
    return count - 1 if ceil and (count - 1) * stride >= size else max(count, 0)


def patches(x: NDArray, kernel: Pair, stride: Pair, pads: Pads, ceil: bool, fill: float) -> NDArray:
    """Every window of every map: (N, C, H', W', kernel height, kernel width), beyond the edge `fill`."""
    edges = [(0, 0), (0, 0)]
    counts = []
    for axis in range(2):
        low, high = pads[axis]
        count = windows_along(x.shape[2 + axis] + low + high, kernel[axis], stride[axis], ceil)
        reach = (count - 1) * stride[axis] + kernel[axis]
        edges.append((low, max(high, reach - x.shape[2 + axis] - low)))
        counts.append(count)
    padded = np.pad(x, edges, constant_values=fill)
    views = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return views[:, :, : counts[0], : counts[1]]


def symmetric(padding: Pair) -> Pads:
    """The same padding on either side."""
    return (padding[0], padding[0]), (padding[1], padding[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Windowed(Layer):
    """A layer whose windows slide over maps (N, C, H, W).

    Attributes:
        stride: steps down and across.
        pads: added rows above and below, columns left and right.
        ceil: whether the last window may hang over the edge.
    """

    stride: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    ceil: bool = False

    @property
    @abstractmethod
    def window(self) -> Pair:
        """Height and width of a window."""

    @property
    def rounds_windows(self) -> bool:
        """Whether the number of windows may be rounded up."""
        return True

    @property
    def most_padding(self) -> int:
        """The most rows that it makes sense to add on one side."""
        return self.window[0]

    def seen(self, fill: float = 0.0) -> NDArray:
        """Every window of the input, see `patches`."""
        return patches(self.x, self.window, self.stride, self.pads, self.ceil, fill)

    def geometry_mistakes(self) -> Iterator[Mistake]:
        """Padding, stride and rounding of the number of windows."""
        kernel, pads, stride = self.window, self.pads, self.stride
        same = []
        for n, k, s in zip(self.x.shape[2:], kernel, stride, strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            same.append((total // 2, total - total // 2))
        if self.rounds_windows and self.ceil:
            yield Mistake("padding_side", "the implied zeros stand at the top and left", _mirrored)
        if self.rounds_windows:
            name = "down" if self.ceil else "up"
            yield setting("ceil_mode", f"the number of windows is rounded {name}", ceil=not self.ceil)
        # With stride 1, SAME is padding by half the window, which is tried below.
        if stride != (1, 1):
            text = f"padding is SAME {tuple(same)}, not {pads}"
            yield setting("padding_same", text, pads=tuple(same), ceil=False)
        smaller = [s - 1 for s in stride]
        for steps in ([1, 1], smaller, [s + 1 for s in stride], [2, 2], [3, 3], [4, 4]):
            if min(steps) >= 1 and tuple(steps) != stride:
                yield setting("stride", f"the stride is {tuple(steps)}, not {stride}", stride=tuple(steps))
        yield from self._padding_mistakes()

    def _padding_mistakes(self) -> Iterator[Mistake]:
        top, most = self.pads[0][0], self.most_padding
        for p in dict.fromkeys((0, top - 1, top + 1, top + 2, (self.window[0] - 1) // 2)):
            if 0 <= p <= most and p != top:
                yield setting("padding", f"padding is {p}, not {top}", pads=((p, p), (p, p)))
        uneven = [(top, top + 1), (top + 1, top), (top - 1, top + 1), (top + 1, top - 1), (0, 2 * top), (2 * top, 0)]
        for low, high in uneven:
            if min(low, high) >= 0 and max(low, high) <= most and low != high:
                text = f"padding is {low} before and {high} after, not {top}"
                yield setting("padding_side", text, pads=((low, high),) * 2)

    def spread(self, shares: Iterator[tuple[int, int, NDArray]], overwrite: bool = False) -> NDArray:
        """Put shares (row and column within the window, array of the output's shape) back at their pixels."""
        x, (rows, columns) = self.x, self.stride
        (top, _), (left, _) = self.pads
        room = [n + 64 + sum(pad) for n, pad in zip(x.shape[2:], self.pads, strict=True)]
        total = np.zeros((*x.shape[:2], *room))
        for i, j, share in shares:
            height, width = share.shape[2:]
            place = (..., slice(i, i + height * rows, rows), slice(j, j + width * columns, columns))
            if overwrite:
                total[place] = np.where(share != 0, share, total[place])
            else:
                total[place] += share
        return total[..., top : top + x.shape[2], left : left + x.shape[3]]


def _mirrored(layer: Layer) -> Layer | None:
    if not isinstance(layer, Windowed):
        return None
    pads = []
    for axis, n in enumerate(layer.x.shape[2:]):
        (low, high), kernel, stride = layer.pads[axis], layer.window[axis], layer.stride[axis]
        count = windows_along(n + low + high, kernel, stride, True)
        over = max((count - 1) * stride + kernel - n - low - high, 0)
        pads.append((low + over, high))
    return replace(layer, pads=(pads[0], pads[1]), ceil=False)
