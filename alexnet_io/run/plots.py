"""The pictures of a run: learning curves, first-layer filters, confusion matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from alexnet_io.command_line.printing import printable
from alexnet_io.run.curves import draw_curves
from alexnet_io.run.figures import DPI, INK, blank, percent, save

__all__ = ["CONFUSION", "CURVES", "FILTERS", "MOST_LABELS", "draw_confusion", "draw_curves", "draw_filters"]

CURVES, FILTERS, CONFUSION = "curves.png", "filters.png", "confusion.png"
MOST_LABELS = 40  # beyond that many classes their names can't be read

_CELL_PIXELS = 64  # at least, for one filter
_GAP_PIXELS = 4


def draw_filters(
    kernel: ArrayLike,
    path: str | os.PathLike[str],
    *,
    scale: Literal["each", "all"] = "each",
    columns: int = 1,
) -> Path:
    """Draws a first layer's kernels as a grid of little pictures, zero being mid-grey.

    Args:
        kernel: (height, width, inputs, filters) with 1 or 3 inputs, as a Flax convolution keeps it.
        path: the PNG to write.
        scale: "each" brings every filter to full contrast; "all" keeps their strengths comparable.
        columns: into how many parts the network divides the filters; each gets its own block of rows, as the
            two GPUs in the paper's figure 3.

    Returns:
        The PNG's absolute path.

    Raises:
        ValueError: the kernel has another shape or weights that aren't finite.
        UserError: the PNG can't be written.
    """
    weights = np.asarray(kernel, np.float64)
    if weights.ndim != 4 or weights.shape[2] not in (1, 3) or weights.shape[3] % columns:
        raise ValueError(f"a kernel of shape {weights.shape} can't be drawn in {columns} columns of RGB filters")
    if not np.isfinite(weights).all():
        raise ValueError("the kernel holds weights that aren't finite")
    blocks = [_filter_grid(part) for part in np.split(_grey_centred(weights, scale), columns, axis=3)]
    space = np.ones((3 * _GAP_PIXELS, blocks[0].shape[1], 3))
    picture = np.concatenate([piece for block in blocks for piece in (block, space)][:-1])
    height, width = picture.shape[:2]
    taps = f"{weights.shape[0]} x {weights.shape[1]}"
    shown = "each at full contrast" if scale == "each" else "all on one scale"
    return _save_picture(picture, path, f"{weights.shape[3]} first-layer filters, {taps}, {shown}", height, width)


def draw_confusion(confusion: ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Draws which class is taken for which, as shares of the true class.

    Args:
        confusion: (classes, classes) counts, rows are the true class, columns the guess.
        class_names: in the same order; shown if there are at most `MOST_LABELS`.
        path: the PNG to write.

    Returns:
        The PNG's absolute path.

    Raises:
        ValueError: the matrix isn't square or doesn't fit the names.
        UserError: the PNG can't be written.
    """
    counts = np.asarray(confusion, np.float64)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(f"a confusion matrix of shape {counts.shape} doesn't fit {classes} class names")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    side = min(max(5.0, 0.34 * classes + 2), 12.0)
    figure = blank(side + 1, side)
    axes = figure.subplots()
    # The root lets the few per cent of a confusion be seen beside the diagonal.
    strength = PowerNorm(0.5 if classes <= 100 else 0.33, 0, 1)
    image = axes.imshow(shares, cmap=_blues(), norm=strength, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8, format=percent(), label="share of the true class")
    axes.set(xlabel="guess", ylabel="true class", title=f"{int(counts.sum()):,} examples, {classes} classes")
    if classes <= MOST_LABELS:
        names = [_shortened(name) for name in class_names]
        size = 9 if classes <= 20 else 7
        turned = 0 if max(map(len, names)) <= 2 else 90
        axes.set_xticks(range(classes), names, fontsize=size, parse_math=False, rotation=turned)
        axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
    if classes <= 20:
        _write_shares(axes, shares)
    return save(figure, path)


def _grey_centred(weights: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Weights as brightness from 0 to 1, 0.5 for zero."""
    axes = (0, 1, 2) if scale == "each" else None
    largest = np.abs(weights).max(axis=axes, keepdims=True)
    return 0.5 + weights / (2 * np.where(largest > 0, largest, 1))


def _filter_grid(filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filters of (height, width, inputs, n) side by side on white, every tap a square of pixels."""
    height, width, _, count = filters.shape
    # About 8:3, as the paper's 96 filters in rows of 16; whole rows if some width up to 16 gives them.
    ideal = min(16, math.ceil(math.sqrt(8 / 3 * count)))
    whole = [width for width in range(1, 17) if count % width == 0 and 0.6 * ideal <= width <= 1.5 * ideal]
    across = min(whole, key=lambda width: abs(width - ideal), default=ideal)
    down = math.ceil(count / across)
    enlarged = max(1, math.ceil(_CELL_PIXELS / max(height, width)))
    tall, wide = height * enlarged, width * enlarged
    grid = np.ones((down * (tall + _GAP_PIXELS) - _GAP_PIXELS, across * (wide + _GAP_PIXELS) - _GAP_PIXELS, 3))
    for index in range(count):
        top, left = (index // across) * (tall + _GAP_PIXELS), (index % across) * (wide + _GAP_PIXELS)
        cell = filters[..., index].repeat(enlarged, axis=0).repeat(enlarged, axis=1)
        grid[top : top + tall, left : left + wide] = cell
    return grid


def _save_picture(
    picture: NDArray[np.float64], path: str | os.PathLike[str], title: str, height: int, width: int
) -> Path:
    """Saves `picture` pixel for pixel under a title."""
    margin, head, room_for_title = 16, 44, 560
    full = (max(width, room_for_title) + 2 * margin, height + margin + head)
    figure = blank(full[0] / DPI, full[1] / DPI, layout=None)
    left = (full[0] - width) // 2
    axes = figure.add_axes((left / full[0], margin / full[1], width / full[0], height / full[1]))
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set_axis_off()
    figure.text(0.5, 1 - head / 2 / full[1], title, ha="center", va="center", color=INK)
    return save(figure, path)


def _write_shares(axes: Axes, shares: NDArray[np.float64]) -> None:
    for row, line in enumerate(shares.tolist()):
        for column, share in enumerate(line):
            if share >= 0.005:
                colour = "white" if share > 0.4 else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)


def _shortened(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= 24 else f"{shown[:23]}…"


def _blues() -> Any:
    return colormaps["Blues"].with_extremes(bad="#dddddd")  # bad: classes without examples
