"""What is told of a finished epoch to the functions that `train(settings, callbacks=[...])` is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import EvaluationReport


@dataclass(frozen=True)
class TrainingMeans:
    """Means over the images of an epoch as they were trained on: augmented, with dropout, each with its step's weights.

    Attributes:
        loss: cross-entropy in nats, with smoothed labels where they are.
        top1: share of images whose first guess was right, 0 to 1.
        top5: the same for the first five guesses.
        examples: how many images; fewer than the training set where a run went on within the epoch.
    """

    loss: float
    top1: float
    top5: float
    examples: int

    @classmethod
    def of(cls, sums: Sums) -> TrainingMeans:
        """From sums over the steps."""
        count = sums.examples
        return cls(sums.loss / count, sums.top1 / count, sums.top5 / count, round(count))


@dataclass(frozen=True)
class EpochRecord:
    """A finished epoch.

    Attributes:
        epoch: epochs done, from 1.
        step: steps done.
        last_step: the step after which the run is over, if nothing ends it sooner.
        learning_rate: of the weights, in the epoch's last step.
        train: what training saw.
        split: the images that steer the run: `validation`, or `test` where none are kept for it.
        evaluation: of these; None after an epoch that `--evaluate-every` leaves out.
        best: largest top-1 accuracy on them so far, 0 to 1; None before the first evaluation.
        best_step: the step after which that was.
        images_per_second: in training, since the last row of metrics; None before the first measurement.
        directory: the run's; None in all processes of a run but the first, which alone writes.
    """

    epoch: int
    step: int
    last_step: int
    learning_rate: float
    train: TrainingMeans
    split: str
    evaluation: EvaluationReport | None
    best: float | None
    best_step: int
    images_per_second: float | None
    directory: Path | None


Callback = Callable[[EpochRecord], Any]  # what it returns is left alone
