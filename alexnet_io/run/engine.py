"""What computes in a training run: the part that a framework plugs into `alexnet_io.run.loop`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from alexnet_io.data.batches import Batch
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.pictures import FirstKernel


@dataclass(frozen=True)
class Sums:
    """Training metrics summed over the real examples of one or more steps, in float64."""

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    examples: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.loss + other.loss, self.top1 + other.top1, self.top5 + other.top5, self.examples + other.examples
        )


@dataclass(frozen=True)
class Step:
    """A step that was handed out and whose numbers are still to be fetched; `number` counts from 1."""

    number: int
    batch: Batch
    rate: float
    handle: Any


class Engine(Protocol):
    """One framework's part of a run, in one of its processes. All processes call the same methods in the same order."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set, the short last one included."""
        ...

    @property
    def runs_ahead(self) -> bool:
        """Whether `train` returns before its step is done."""
        ...

    @property
    def preparing(self) -> str:
        """What the first step is waited for, in a word or two."""
        ...

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        ...

    def fail(self, text: str) -> NoReturn:
        """End the run over something that all processes found alike."""
        ...

    def start(self) -> None:
        """Begin with fresh weights."""
        ...

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Go on from the newest intact checkpoint: its step and facts; None, and nothing done, where there is none."""
        ...

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's share of the batches that are left of the epoch in which `step` lies."""
        ...

    def learning_rate(self, step: int) -> float:
        """Of the weights, in the step after `step` steps."""
        ...

    def train(self, batch: Batch, step: int, rate: float) -> Any:
        """Hand out the step after `step` steps; returns what `fetch` takes."""
        ...

    def fetch(self, handle: Any) -> Sums:
        """Wait for a step's numbers, over all processes."""
        ...

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """What all processes want after this step, or wanted one step ago: the signal to stop by, and to save."""
        ...

    def evaluate(self) -> EvaluationReport:
        """Over every image once that steers the run: the validation images, or the test images where there are none."""
        ...

    def evaluate_test(self) -> EvaluationReport:
        """Over every test image once; asked for only where others steer the run."""
        ...

    def count_error(self, error: float) -> None:
        """Let a plateau schedule see an epoch's error on the images that steer the run, 0 to 1."""
        ...

    def weights_are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        ...

    def trace(self, path: Path) -> contextlib.AbstractContextManager[Any]:
        """Trace what is computed while it is open, and write it into that directory; asked for with `--profile`."""
        ...

    def saving(self, directory: RunDirectory | None) -> contextlib.AbstractContextManager[Any]:
        """Open from the first step to the last; leaving it waits for what is being saved."""
        ...

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Save all that `restore` needs."""
        ...

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        """Save the weights alone: all that evaluation and prediction need."""
        ...

    def first_kernel(self) -> FirstKernel:
        """The evaluated weights of conv1: float32 (height, width, channels, filters)."""
        ...
