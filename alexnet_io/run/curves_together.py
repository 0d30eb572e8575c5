"""Learning curves of several runs in one picture: the same run by two programs, or with other settings."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from alexnet_io.run.curves import scale_accuracies, scale_losses, smoothed
from alexnet_io.run.figures import INK, blank, save
from alexnet_io.run.metrics import SPLITS, MetricsRow

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # colour-blind readers tell them apart
_STYLES = dict(zip(SPLITS, (":", "--", "-"), strict=True))


def draw_together(runs: Mapping[str, Sequence[MetricsRow]], path: str | os.PathLike[str]) -> Path:
    """Draws losses above accuracies (top-1) over the epochs, a colour for each run and a style for each split.

    Args:
        runs: their metrics by the labels that the legend shows, at most as many as there are `COLOURS`.
        path: the PNG to write.

    Returns:
        The PNG's absolute path.

    Raises:
        ValueError: there are no runs, too many, or one without rows.
        UserError: the PNG can't be written.
    """
    if not 0 < len(runs) <= len(COLOURS) or not all(runs.values()):
        raise ValueError(f"curves are of 1 to {len(COLOURS)} runs that have metrics")
    figure = blank(8, 8)
    above, below = figure.subplots(2, 1, sharex=True)
    # Runs that are equal hide each other: earlier ones are broader, and show on both sides of later ones.
    widths = np.linspace(3.2 if len(runs) > 1 else 1.2, 1.2, len(runs))
    for (label, rows), colour, width in zip(runs.items(), COLOURS, widths, strict=False):
        above.plot([], [], color=colour, label=label, linewidth=width)
        for split, style in _STYLES.items():
            chosen = [row for row in rows if row.split == split]
            accuracies = [(row.epoch, math.nan if row.top1 is None else row.top1) for row in chosen]
            _draw(above, [(row.epoch, row.loss) for row in chosen], colour, style, width)
            _draw(below, accuracies, colour, style, width)
    every = [row for rows in runs.values() for row in rows]
    for split in SPLITS:
        if any(row.split == split for row in every):
            below.plot([], [], _STYLES[split], color=INK, label=split)
    scale_losses(above, every)
    scale_accuracies(below)
    below.set_xlabel("epoch")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        legend = axes.legend(frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a directory's name may hold dollars
    return save(figure, path)


def _draw(axes: Axes, points: Sequence[tuple[float, float]], colour: str, style: str, width: float) -> None:
    if not any(math.isfinite(value) for _, value in points):
        return
    epochs, values = np.array(points, np.float64).T
    marker = "o" if len(points) == 1 else ""
    axes.plot(epochs, smoothed(values), style, color=colour, linewidth=width, marker=marker, markersize=4)
