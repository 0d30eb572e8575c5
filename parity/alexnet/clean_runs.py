"""`parity clean`: false alarms. Networks without a bug, over models, precisions, seeds and image sizes.

A harness that finds every planted bug may simply cry wolf. So the same comparison runs where there is nothing to
find, with other weights, images and sizes each time; any divergence it reports is an alarm.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.alexnet import layerwise as layers
from parity.alexnet import pairs
from parity.settings import DTYPES, MODELS

SCHEMA = "parity-clean/1"

# Sides at which each network's last maps still have several pixels; the CIFAR nets keep their own.
SIZES: tuple[tuple[int, int], ...] = ((67, 67), (71, 95), (95, 71))


@dataclass(frozen=True)
class CleanRun:
    """One comparison without a bug.

    Attributes:
        model: id of the network.
        dtype: of the lane.
        seed: of weights, images and cotangents.
        image_size: height and width, or None for the network's own.
        gradients: whether backward passes were compared too.
        comparisons: rows of the report.
        used: largest part of a bound that was used.
        alarm: the first divergence in words, or None.
    """

    model: str
    dtype: str
    seed: int
    image_size: tuple[int, int] | None
    gradients: bool
    comparisons: int
    used: float
    alarm: str | None

    @property
    def line(self) -> str:
        """The run in a line of a terminal."""
        what = "grads" if self.gradients else "layers"
        size = "x".join(map(str, self.image_size)) if self.image_size else "own"
        told = self.alarm or f"{self.comparisons} comparisons equal, at most {self.used:.2f} of a bound"
        return f"{self.seed:4} {self.model:20} {self.dtype:8} {what:6} {size:6} {'ALARM: ' if self.alarm else ''}{told}"


@dataclass
class CleanScore:
    """The outcomes of a series of clean runs."""

    runs: list[CleanRun]

    @property
    def alarms(self) -> int:
        """Runs in which the harness reported a divergence."""
        return sum(run.alarm is not None for run in self.runs)

    @property
    def summary(self) -> str:
        """The outcome in words."""
        rows = sum(run.comparisons for run in self.runs)
        used = max((run.used for run in self.runs), default=0.0)
        return f"{len(self.runs)} clean runs, {rows} comparisons: {self.alarms} alarms, at most {used:.2f} of a bound"

    @property
    def exit_code(self) -> int:
        """0 without alarms, else 1."""
        return 1 if self.alarms else 0

    def write_json(self, path: str | Path) -> None:
        """Write counts and runs to a file."""
        content: dict[str, Any] = {"schema": SCHEMA, "runs": len(self.runs), "alarms": self.alarms}
        content["details"] = [asdict(run) for run in self.runs]
        Path(path).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def plan(count: int, seed: int = 0) -> Iterator[tuple[str, str, tuple[int, int] | None, bool, int]]:
    """Model, dtype, image size, gradients and seed of each run: models turn fastest, then precisions."""
    for i in range(count):
        model, lap = MODELS[i % len(MODELS)], i // len(MODELS)
        size = None if model.startswith("cifar") else SIZES[(i + lap) % len(SIZES)]
        yield model, DTYPES[lap % len(DTYPES)], size, (lap // len(DTYPES)) % 2 == 1, seed + i


def run(count: int = 200, seed: int = 0, show: Callable[[CleanRun], None] = lambda run: None) -> CleanScore:
    """Compare networks without a bug.

    Args:
        count: of runs.
        seed: of the first; each has its own.
        show: called with each run as soon as it is there.
    """
    score = CleanScore([])
    for chosen in plan(count, seed):
        score.runs.append(_one(*chosen))
        show(score.runs[-1])
        gc.collect()
    return score


def _one(model: str, dtype: str, size: tuple[int, int] | None, gradients: bool, seed: int) -> CleanRun:
    pair = pairs.build(model, dtype=dtype, seed=seed, classes=10, image_size=size)
    images = np.asarray(pairs.images(pair, layers.BATCH[dtype], seed), np.float64)
    report = layers.compare_pair(pair, images, gradients=gradients, seed=seed)
    first = report.first_divergence
    used = max((row.fraction for row in report.rows if np.isfinite(row.fraction)), default=0.0)
    alarm = None if report.equal else "nothing was compared"
    if first is not None:
        alarm = f"{first.name} {first.stage}: {first.verdict}, {first.fraction:.3g} of the bound, ratio {first.ratio}"
    return CleanRun(model, dtype, seed, size, gradients, len(report.rows), used, alarm)
