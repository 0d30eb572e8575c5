"""The experiments' plots, drawn as those of a run: matplotlib's Agg alone, no display needed."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from alexnet_io.command_line.printing import printable
from alexnet_io.files import atomic_file
from alexnet_io.run.metrics import MetricsRow
from jax_alexnet.reproduce import reading
from jax_alexnet.reproduce.race import Race

# Told apart by colour-blind readers, too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK, _RIGHT, _WRONG = "#333333", "#009e73", "#d55e00"
_DPI = 120


def draw_race(path: Path, races: Mapping[str, Sequence[Race]], level: float) -> None:
    """Training error over epochs as in figure 1: one network drawn through, the other dashed, every seed."""
    figure, axes = _figure(7, 4.6)
    for (neurons, several), colour, style in zip(races.items(), _COLOURS, ("-", "--"), strict=False):
        for number, race in enumerate(several):
            label = f"{neurons}, learning rate {race.rate:g}" if number == 0 else None
            axes.plot(*_columns(race.points), style, color=colour, label=label, alpha=1 if number == 0 else 0.45)
            if race.epochs is not None:
                axes.plot([race.epochs], [level], "o", color=colour, markersize=5)
    axes.axhline(level, color=_INK, linewidth=0.8, linestyle=":")
    _finish(axes, "training error", "epoch")
    axes.set_title(f"Epochs to {level:.0%} training error", fontsize=11)
    _save(figure, path)


def draw_study(path: Path, arms: Mapping[str, Sequence[Sequence[MetricsRow]]], title: str) -> None:
    """Test errors over epochs of every seed and arm, and beside them where each ended."""
    figure = _blank(9, 4.6)
    curves, ends = figure.subplots(1, 2, width_ratios=(3, 1))
    for place, ((arm, runs), colour) in enumerate(zip(arms.items(), _COLOURS, strict=False)):
        last = []
        for number, rows in enumerate(runs):
            points = reading.test_errors(rows)
            if not points:
                continue  # it diverged
            last.append(points[-1][1])
            marker = "o" if len(points) == 1 else ""
            curves.plot(
                *_columns(points), color=colour, alpha=0.8, label=arm if number == 0 else None, marker=marker, lw=1.2
            )
        ends.plot([place] * len(last), last, "o", color=colour, alpha=0.7)
        if last:
            ends.plot([place - 0.25, place + 0.25], [np.mean(last)] * 2, color=colour, linewidth=2)
    _finish(curves, "test error", "epoch")
    curves.set_title(title, fontsize=11)
    ends.set_xticks(range(len(arms)), ["\n".join(arm.split()) for arm in arms], fontsize=7)
    ends.set_xlim(-0.6, len(arms) - 0.4)
    ends.yaxis.set_major_formatter(PercentFormatter(1))
    ends.set_title("at the end; line: mean", fontsize=9)
    ends.grid(alpha=0.25)
    _save(figure, path)


def draw_errors(path: Path, runs: Mapping[str, Sequence[MetricsRow]], published: float, title: str) -> None:
    """Training and test errors over epochs, and the published error."""
    figure, axes = _figure(7, 4.6)
    for (label, rows), colour in zip(runs.items(), _cycled(len(runs)), strict=True):
        axes.plot(*_columns(reading.training_errors(rows, 1)), "--", color=colour, lw=1, label=f"training, {label}")
        points = reading.test_errors(rows)
        axes.plot(*_columns(points), color=colour, marker="o" if len(points) < 20 else "", ms=4, label=f"test, {label}")
    axes.axhline(published, color=_INK, linewidth=0.8, linestyle=":", label=f"published, {published:.0%}")
    _finish(axes, "error", "epoch")
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def draw_losses(path: Path, runs: Mapping[str, Sequence[MetricsRow]], first: float, best: float) -> None:
    """Losses on the test images over epochs, and the notebook's two."""
    figure, axes = _figure(7, 4.6)
    for (label, rows), colour in zip(runs.items(), _COLOURS, strict=False):
        points = [(row.epoch, row.loss) for row in reading.of_split(rows, "test")]
        axes.plot(*_columns(points), color=colour, marker="o", ms=4, label=f"recipe {label}")
    for value, what in ((first, "after its first epoch"), (best, "at its best")):
        axes.axhline(value, color=_INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"notebook {what}, {value:.3f}",
            (0.98, value),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            ha="right",
            va="bottom",
            color=_INK,
        )
    axes.set(xlabel="epoch", ylabel="loss on the test images (nats)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    _save(figure, path)


def draw_crops(path: Path, errors: Mapping[int, Sequence[float]]) -> None:
    """Top-1 and top-5 errors in per cent, on one crop and on several."""
    figure, axes = _figure(5.5, 4)
    for number, ((crops, both), colour) in enumerate(zip(errors.items(), _COLOURS, strict=False)):
        places = np.arange(2) + 0.36 * (number - 0.5)
        bars = axes.bar(places, both, 0.34, color=colour, label=f"{crops} crop{'s' if crops > 1 else ''}")
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(2), ["top-1", "top-5"])
    axes.set_ylabel("test error %")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25, axis="y")
    _save(figure, path)


@dataclass(frozen=True)
class Query:
    """A test image uint8 (height, width, 3), its class, its likeliest ones, its neighbours, which of them are alike."""

    image: NDArray[np.uint8]
    truth: str
    top: Sequence[tuple[str, float]]
    neighbours: Sequence[NDArray[np.uint8]]
    same: Sequence[bool]


def draw_neighbours(path: Path, queries: Sequence[Query]) -> None:
    """Figure 4: each test image with its likeliest classes, and the training images nearest to it."""
    neighbours = len(queries[0].neighbours)
    figure = _blank(3.6 + 1.05 * neighbours, 1.15 * len(queries) + 0.5)
    grid = figure.subplots(len(queries), 2 + neighbours, squeeze=False, width_ratios=(1, 2.2, *([1] * neighbours)))
    for axes, query in zip(grid, queries, strict=True):
        _show(axes[0], query.image)
        axes[0].set_title(_shortened(query.truth), fontsize=8, pad=2, parse_math=False)
        _bars(axes[1], query)
        for each, image, same in zip(axes[2:], query.neighbours, query.same, strict=True):
            _show(each, image, _RIGHT if same else _WRONG)
    figure.suptitle(
        "Test image; likeliest classes (the right one green); nearest training images (green: of the same class)",
        fontsize=9,
    )
    _save(figure, path)


def _bars(axes: Axes, query: Query) -> None:
    colours = [_RIGHT if name == query.truth else "#b8c4ce" for name, _ in query.top]
    places = range(len(query.top))
    axes.barh(places, [probability for _, probability in query.top], color=colours)
    for place, (name, _) in zip(places, query.top, strict=True):
        axes.text(0.02, place, _shortened(name), va="center", fontsize=7, color=_INK, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _show(axes: Axes, image: NDArray[np.uint8], edge: str | None = None) -> None:
    axes.imshow(image, interpolation="nearest" if image.shape[0] < 100 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(edge is not None)
        if edge is not None:
            spine.set_edgecolor(edge)
            spine.set_linewidth(2.5)


def _shortened(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= 24 else f"{shown[:23]}…"


def _columns(points: reading.Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _cycled(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _finish(axes: Axes, ylabel: str, xlabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _blank(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _blank(width, height)
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> None:
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # class names in any script
        figure.savefig(image, format="png")
    atomic_file.write_bytes(path, image.getvalue())
