"""Learning curves: loss, accuracy and learning rate over the epochs of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alexnet_io.run.figures import INK, TEST, TRAIN, VALIDATION, blank, percent, png, save
from alexnet_io.run.metrics import SPLITS, MetricsRow, best_of

_SMOOTHED_FROM = 100  # training points from which the mean of their neighbours is drawn over them


def draw_curves(rows: Sequence[MetricsRow], path: str | os.PathLike[str]) -> Path:
    """Draws loss, accuracy and learning rate over the epochs, and marks the evaluation that did best.

    Args:
        rows: a run's metrics; see `alexnet_io.run.metrics.read_metrics`.
        path: the PNG to write.

    Returns:
        The PNG's absolute path.

    Raises:
        ValueError: there are no rows.
        UserError: the PNG can't be written.
    """
    if not rows:
        raise ValueError("there are no metrics to draw")
    figure = blank(8, 9)
    every = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    for axes, draw in zip(every, CHARTS.values(), strict=True):
        draw(axes, rows)
        _finish(axes)
    every[-1].set_xlabel("epoch")
    return save(figure, path)


def chart(rows: Sequence[MetricsRow], name: str) -> bytes:
    """One of the curves alone as a PNG, of a size that a phone shows legibly.

    Args:
        rows: see `draw_curves`.
        name: one of `CHARTS`.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no metrics to draw")
    figure = blank(4.6, 3.5)
    axes = figure.subplots()
    CHARTS[name](axes, rows)
    _finish(axes)
    axes.set_xlabel("epoch")
    return png(figure)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _of_each_split(rows: Sequence[MetricsRow]) -> list[tuple[str, str, list[MetricsRow]]]:
    colours = zip(SPLITS, (TRAIN, VALIDATION, TEST), strict=True)
    return [(split, colour, [row for row in rows if row.split == split]) for split, colour in colours]


def _draw_loss(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    for split, colour, chosen in _of_each_split(rows):
        _draw_curve(axes, chosen, "loss", split, colour)
    _mark_best(axes, rows, "loss")
    scale_losses(axes, rows)


def scale_losses(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    """Let the axis suit the losses: from zero on, or logarithmic where they differ by much."""
    axes.set_ylabel("cross-entropy (nats)")
    values = [row.loss for row in rows if math.isfinite(row.loss) and row.loss > 0]
    if values and max(values) > 50 * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def scale_accuracies(axes: Axes) -> None:
    """Let the axis show accuracies from nothing to all."""
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(percent())


def _draw_accuracy(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    for split, colour, chosen in _of_each_split(rows):
        _draw_curve(axes, chosen, "top1", f"{split}, top-1", colour)
        if split != "train" and any(row.top5 is not None for row in chosen):
            _draw_curve(axes, chosen, "top5", f"{split}, top-5", colour, style="--")
    best = best_of(rows)
    label = "" if best is None or best.top1 is None else f"best, {best.top1:.2%}"
    _mark_best(axes, rows, "top1", label)
    scale_accuracies(axes)


def _mark_best(axes: Axes, rows: Sequence[MetricsRow], name: str, label: str = "") -> None:
    """A star on the evaluation whose weights are the run's best."""
    best = best_of(rows)
    value = None if best is None else getattr(best, name)
    if best is None or value is None or not math.isfinite(value):
        return
    axes.plot([best.epoch], [value], "*", color=INK, markersize=12, markeredgecolor="white", label=label or None)


def _draw_curve(axes: Axes, rows: Sequence[MetricsRow], name: str, label: str, colour: str, style: str = "-") -> None:
    points = [(row.epoch, value) for row in rows if (value := getattr(row, name)) is not None]
    if not any(math.isfinite(value) for _, value in points):
        return
    epochs, values = np.array(points, np.float64).T
    if len(points) < _SMOOTHED_FROM:
        marker = "o" if len(points) <= 30 else ""
        axes.plot(epochs, values, style, color=colour, label=label, marker=marker, markersize=4)
        return
    axes.plot(epochs, values, style, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(epochs, smoothed(values), style, color=colour, label=label)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and its neighbours, where there are so many that a curve of them would be a blur."""
    if len(values) < _SMOOTHED_FROM:
        return values
    width = max(len(values) // 50, 3) | 1
    counts = np.convolve(np.ones(len(values)), np.ones(width), "same")
    return np.convolve(values, np.ones(width), "same") / counts


def _draw_rate(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    points = [(row.epoch, row.learning_rate) for row in rows if row.learning_rate is not None]
    axes.set_ylabel("learning rate")
    if not points:
        return
    epochs, rates = zip(*points, strict=True)
    axes.step(epochs, rates, where="post", color=INK, marker="o" if len(points) == 1 else "")
    if min(rates) > 0 and max(rates) > 5 * min(rates):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.15 * max(rates) or 1)


CHARTS = {"loss": _draw_loss, "accuracy": _draw_accuracy, "learning rate": _draw_rate}
