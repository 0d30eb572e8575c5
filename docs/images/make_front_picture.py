"""Draw front.png: every layer of the paper's network in both frameworks, and both training programs on one run.

    python docs/images/make_front_picture.py      # some four minutes of CPU time

Nothing in the picture is written by hand: the table is `parity grads --model two_column`, and the curves are twins of
`jax_alexnet.train` and `torch_ref.train` on the digits, in float64, from the same weights and with the same draws.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet_io.command_line.train_settings import TrainSettings
from parity.alexnet import layerwise
from parity.reports.report import Report
from parity.reports.rows import Row
from parity.twins.engines import JaxPrograms
from parity.twins.records import Record
from parity.twins.sides import run_jax, run_torch

TARGET = Path(__file__).with_name("front.png")
NETWORK = "two_column"
RUN = TrainSettings(
    model="cifar_18pct",
    recipe="blog",
    learning_rate=1e-3,
    batch_size=32,
    epochs=2,
    evaluate_every=2,
    precision="float64",
    devices="1",
)
Losses = NDArray[np.float64]
BLUE, ORANGE, GREY = "#1f5fa8", "#e07b20", "#666666"


def main() -> None:
    """Compare, train, draw."""
    jax.config.update("jax_enable_x64", True)
    report = layerwise.run([NETWORK], gradients=True)
    with tempfile.TemporaryDirectory() as scratch:
        ours = run_jax(_at(Path(scratch), "jax"), JaxPrograms())
        theirs = run_torch(_at(Path(scratch), "torch"), ours.first_parameters)
    draw(report, losses(ours), losses(theirs))


def losses(record: Record) -> Losses:
    """The mean loss of each step's images."""
    return np.array([step.sums.loss / step.sums.examples for step in record.steps if step.sums])


def draw(report: Report, ours: Losses, theirs: Losses) -> None:
    """Table and curves, side by side."""
    mpl.rcParams.update(
        {"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))  # an array of two
    draw_table(panels[0].subplots(), report)
    above, below = panels[1].subplots(2, 1, sharex=True, height_ratios=(2, 1))
    draw_curves(above, below, ours, theirs)
    figure.savefig(TARGET, dpi=150, metadata={"Software": None})
    print(TARGET)


def _at(scratch: Path, side: str) -> TrainSettings:
    """The run in a directory of its own."""
    return TrainSettings(**{**vars(RUN), "output": scratch / side, "cache_dir": scratch / "cache"})


def draw_table(axes: Axes, report: Report) -> None:
    """A line for each layer: how far apart the two are, what rounding may make, and how much of that was used."""
    axes.axis("off")
    columns = ("layer", "differs by", "rounding allows", "used", "backward, used")
    places, line = (0.0, 0.34, 0.6, 0.75, 1.0), 1.0
    rows = [row for row in report.rows if row.name not in ("output", "end to end")]
    ran = sorted((row for row in rows if row.stage == "forward"), key=lambda row: row.order)
    names = list(dict.fromkeys(row.name for row in ran))
    height = 1 / (len(names) + 3)
    axes.set_title(f"{NETWORK}, float64: every layer of JAX's on PyTorch's input", loc="left", weight="bold")

    def write(cells: tuple[str, ...], **style: object) -> None:
        for place, cell in zip(places, cells, strict=True):
            axes.text(place, line, cell, ha="left" if place == 0 else "right", va="top", **style)  # pyright: ignore[reportArgumentType]

    write(columns, color=GREY)
    for name in names:
        line -= height
        forward = [row for row in rows if row.name == name and row.stage == "forward"]
        backward = [row for row in rows if row.name == name and row.stage.startswith("backward")]
        worst = max(forward, key=lambda row: row.fraction)
        write((name, _number(worst.max_error), _number(worst.bound), _used(forward), _used(backward)))
    line -= 1.4 * height
    verdict = "equal" if report.equal else "DIFFERENT"
    write((f"{len(report.rows)} comparisons: {verdict}", "", "", "", ""), weight="bold")
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _used(rows: list[Row]) -> str:
    """The largest part of a bound that these rows used."""
    most = max((row.fraction for row in rows), default=0.0)
    return "<1%" if 0 < most < 0.01 else f"{most:.0%}"


def _number(value: float) -> str:
    """Two digits; equality to the bit is a plain 0."""
    return f"{value:.1e}" if value else "0"


def draw_curves(above: Axes, below: Axes, ours: Losses, theirs: Losses) -> None:
    """The loss of every step in both programs, and how far apart they are."""
    steps = np.arange(1, len(ours) + 1)
    above.plot(steps, ours, color=BLUE, lw=3, alpha=0.5, label="python -m jax_alexnet.train")
    above.plot(steps, theirs, color=ORANGE, lw=1, ls="--", label="python -m torch_ref.train")
    above.set_title("One run, both training programs, float64", loc="left", weight="bold")
    above.set_ylabel("loss of a step")
    above.set_ylim(bottom=0)
    above.legend(frameon=False)
    below.semilogy(steps, np.maximum(np.abs(ours - theirs), 1e-17), color=GREY, lw=1)
    below.set_ylabel("they differ by")
    below.set_xlabel(f"step ({RUN.model} on handwritten digits)")
    below.set_ylim(1e-17, 1e-13)


if __name__ == "__main__":
    main()
