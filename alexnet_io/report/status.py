"""How far a run has come, how well it does and how long it took, from what it has written down."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run.directory import METRICS
from alexnet_io.run.directory_lock import in_use
from alexnet_io.run.metrics import MetricsRow, best_of


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        state: in a word or two: `running`, `finished`, `stopped early` or `interrupted`.
        step: optimizer steps that its rows tell of.
        epoch: passes over the training set.
        planned: how long it was to be, in words.
        best: the evaluation whose weights are its best.
        last: the last evaluation of the same images.
        test: the last evaluation of the test images.
        speed: images a second in training, the median of its rows.
        training_seconds: in training steps, by the rows' speeds; None where these or the number of images are unknown.
        evaluating_seconds: in evaluations, likewise.
        began: when, as its description says.
        written: when its last row was, in the same form.
    """

    state: str
    step: int
    epoch: float
    planned: str
    best: MetricsRow | None
    last: MetricsRow | None
    test: MetricsRow | None
    speed: float | None
    training_seconds: float | None
    evaluating_seconds: float | None
    began: str
    written: str | None

    @property
    def headline(self) -> str:
        """In a sentence or two."""
        done = f"{self.state[0].upper()}{self.state[1:]} after {self.epoch:.4g} of {self.planned}, step {self.step:,}."
        if self.best is None or self.best.top1 is None:
            return f"{done} Nothing was evaluated yet."
        split = self.best.split
        found = f"{done} Best on the {split} images: {self.best.top1:.2%}, after epoch {self.best.epoch:.4g}"
        if self.last is not None and self.last.top1 is not None and self.last != self.best:
            found += f"; last: {self.last.top1:.2%}"
        if split != "test" and self.test is not None and self.test.top1 is not None:
            found += f". Test images at the end: {self.test.top1:.2%}"
        return f"{found}."


def status_of(
    run: Path, description: Mapping[str, Any], settings: CompleteSettings, rows: Sequence[MetricsRow]
) -> Status:
    """The status of the run in a directory.

    Args:
        run: the directory.
        description: its run.json.
        settings: those that it began with, and its end as it was last resumed.
        rows: its metrics.
    """
    step, epoch = max((row.step for row in rows), default=0), max((row.epoch for row in rows), default=0)
    best = best_of(rows)
    steering = [row for row in rows if best is not None and row.split == best.split]
    tested = [row for row in rows if row.split == "test"]
    counts = {name: _examples(description, name) for name in ("train", "validation", "test")}
    speeds = [row.images_per_second for row in rows if row.split == "train" and row.images_per_second]
    metrics = run / METRICS
    written = time.localtime(metrics.stat().st_mtime) if rows and metrics.exists() else None
    return Status(
        state="running" if in_use(run) else _ended(settings, step, epoch, steering, best),
        step=step,
        epoch=epoch,
        planned=f"{settings.epochs} epochs" + (f", at most {settings.steps:,} steps" if settings.steps else ""),
        best=best,
        last=steering[-1] if steering else None,
        test=tested[-1] if tested else None,
        speed=statistics.median(speeds) if speeds else None,
        training_seconds=_training_seconds(rows, counts["train"]),
        evaluating_seconds=_evaluating_seconds(rows, counts),
        began=str(description.get("started", "not recorded")),
        written=time.strftime("%Y-%m-%dT%H:%M:%S%z", written) if written else None,
    )


def _ended(
    settings: CompleteSettings, step: int, epoch: float, steering: Sequence[MetricsRow], best: MetricsRow | None
) -> str:
    if epoch >= settings.epochs or (settings.steps is not None and step >= settings.steps):
        return "finished"
    if settings.patience is not None and best is not None and steering[-1].epoch - best.epoch >= settings.patience:
        return "stopped early"
    return "interrupted"


def _examples(description: Mapping[str, Any], split: str) -> int | None:
    found = description.get("data")
    found = found.get(split) if isinstance(found, Mapping) else None
    count = found.get("examples") if isinstance(found, Mapping) else None
    return count if isinstance(count, int) else None


def _training_seconds(rows: Sequence[MetricsRow], examples: int | None) -> float | None:
    """Images between one row and the next over the images a second of the latter."""
    total, before = 0.0, 0.0
    for row in (row for row in rows if row.split == "train"):
        if row.images_per_second and examples is not None:
            total += max(row.epoch - before, 0.0) * examples / row.images_per_second
        before = row.epoch
    return total if total > 0 and math.isfinite(total) else None


def _evaluating_seconds(rows: Sequence[MetricsRow], counts: Mapping[str, int | None]) -> float | None:
    measured = [(counts[row.split], row.images_per_second) for row in rows if row.split != "train"]
    total = sum(count / speed for count, speed in measured if count and speed)
    return total if total > 0 and math.isfinite(total) else None
