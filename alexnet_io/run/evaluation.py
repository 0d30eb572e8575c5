"""Counts for an evaluation, in numpy alone: every example once, whatever the batches and processes.

A padding row has weight 0 and leaves no trace. The sums are exact (integers, and a float sum kept without
rounding), so neither the order of the examples nor their division among processes changes a digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet_io.errors import UserError
from alexnet_io.run.evaluation_report import TOP, ClassCount, EvaluationReport

__all__ = ["ClassCount", "Evaluation", "EvaluationReport"]

_PARTS = 64  # a float64 sum without rounding has at most 40 parts


class Evaluation:
    """Adds up an evaluation batch by batch.

    Args:
        class_names: one name per output unit, all different.

    Raises:
        UserError: a class name appears twice, or there is none.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        twice = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if twice or not self.class_names:
            raise UserError(f"class names must be given and differ from each other; twice: {twice}.")
        classes = len(self.class_names)
        self._confusion = np.zeros((classes, classes), np.int64)
        self._top5 = 0
        self._loss: list[float] = []
        self._loss_not_finite = 0.0

    def add(self, logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Counts a batch from its logits.

        Among equal logits the lower class comes first.

        Args:
            logits: (N, classes), any float type; losses are computed in float64.
            labels: (N,) integers from 0 to classes - 1.
            weights: (N,) 1 for an example, 0 for a padding row; by default all 1.

        Raises:
            ValueError: a shape is wrong, a label out of range, or a weight neither 0 nor 1.
            UserError: the logits of an example hold a NaN, so that it has no likeliest class.
        """
        scores = np.asarray(logits, np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(self.class_names):
            raise ValueError(f"logits have shape {scores.shape}, not (N, {len(self.class_names)})")
        truth, counted = self._checked(labels, weights, len(scores))
        scores, truth = scores[counted], truth[counted]
        if not len(truth):
            return
        undefined = int(np.isnan(scores).any(axis=1).sum())
        if undefined:
            raise UserError(
                f"the outputs for {undefined} of {len(truth)} examples are NaN: the weights have diverged. "
                "Evaluate an earlier checkpoint."
            )
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < truth[:, None]))
        highest = scores.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore"):
            losses = (np.log(np.exp(scores - highest).sum(axis=1, keepdims=True)) + highest - own)[:, 0]
        self._count(truth, scores.argmax(axis=1), before.sum(axis=1) < TOP, losses)

    def add_results(
        self,
        predicted: ArrayLike,
        in_top5: ArrayLike,
        losses: ArrayLike,
        labels: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> None:
        """Counts a batch that the device has already judged.

        Args:
            predicted: (N,) the likeliest class of each example.
            in_top5: (N,) bool, whether the label is among the min(5, classes) likeliest.
            losses: (N,) cross-entropy of each example in nats.
            labels: as for `add`.
            weights: as for `add`.

        Raises:
            ValueError: as for `add`.
        """
        truth, counted = self._checked(labels, weights, len(np.asarray(labels)))
        arrays = [np.asarray(predicted), np.asarray(in_top5, bool), np.asarray(losses, np.float64)]
        if any(array.shape != truth.shape for array in arrays):
            raise ValueError(f"shapes {[array.shape for array in arrays]} differ from the labels' {truth.shape}")
        guessed, top5, loss = (array[counted] for array in arrays)
        self._count(truth[counted], guessed, top5, loss)

    def merge(self, other: Evaluation) -> None:
        """Adds the counts of another part of the same evaluation, from another process say."""
        if other.class_names != self.class_names:
            raise ValueError("the two evaluations have different classes")
        self._confusion += other._confusion
        self._top5 += other._top5
        self._loss_not_finite += other._loss_not_finite
        for part in other._loss:
            _add_exactly(self._loss, part)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The counts as arrays of fixed shapes, to be gathered from every process."""
        parts = np.zeros(_PARTS, np.float64)
        parts[: len(self._loss)] = self._loss
        parts[-1] = self._loss_not_finite
        return {"confusion": self._confusion.copy(), "top5": np.array(self._top5, np.int64), "loss": parts}

    @classmethod
    def from_arrays(cls, class_names: Sequence[str], arrays: dict[str, NDArray[Any]]) -> Evaluation:
        """The inverse of `to_arrays`."""
        made = cls(class_names)
        made._confusion += np.asarray(arrays["confusion"])
        made._top5 = int(arrays["top5"])
        for part in np.asarray(arrays["loss"], np.float64)[:-1]:
            _add_exactly(made._loss, float(part))
        made._loss_not_finite = float(arrays["loss"][-1])
        return made

    def report(self) -> EvaluationReport:
        """The result so far.

        Raises:
            UserError: nothing has been counted.
        """
        examples = int(self._confusion.sum())
        if not examples:
            raise UserError("no example was evaluated: the evaluation set is empty. Check --data.")
        totals = self._confusion.sum(axis=1)
        correct = self._confusion.diagonal()
        return EvaluationReport(
            examples=examples,
            top1=int(correct.sum()) / examples,
            top5=self._top5 / examples,
            loss=(math.fsum(self._loss) + self._loss_not_finite) / examples,
            per_class={
                name: ClassCount(int(right), int(total))
                for name, right, total in zip(self.class_names, correct, totals, strict=True)
            },
            confusion=self._confusion.copy(),
        )

    def _checked(
        self, labels: ArrayLike, weights: ArrayLike | None, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Labels as int64 and the mask of the rows that count."""
        truth = np.asarray(labels)
        weight = np.ones(rows) if weights is None else np.asarray(weights)
        if truth.shape != (rows,) or weight.shape != (rows,):
            raise ValueError(f"labels {truth.shape} and weights {weight.shape} don't fit {rows} rows")
        if not np.isin(weight, (0, 1)).all():
            raise ValueError("weights must be 1 for an example and 0 for a padding row")
        if not np.issubdtype(truth.dtype, np.integer):
            raise ValueError(f"labels are {truth.dtype}, not integers")
        counted = weight == 1
        classes = len(self.class_names)
        wrong = truth[counted & ((truth < 0) | (truth >= classes))]
        if wrong.size:
            raise ValueError(f"label {wrong[0]} is outside 0..{classes - 1}")
        return truth.astype(np.int64), counted

    def _count(
        self,
        truth: NDArray[np.int64],
        predicted: NDArray[Any],
        top5: NDArray[np.bool_],
        losses: NDArray[np.float64],
    ) -> None:
        np.add.at(self._confusion, (truth, predicted), 1)
        self._top5 += int(top5.sum())
        for loss in losses.tolist():
            if math.isfinite(loss):
                _add_exactly(self._loss, loss)
            else:
                self._loss_not_finite += loss


def _add_exactly(parts: list[float], value: float) -> None:
    """Adds `value` to the sum that `parts` hold together, without rounding (Shewchuk 1997, grow-expansion)."""
    kept = 0
    for part in parts:
        if abs(value) < abs(part):
            value, part = part, value
        high = value + part
        low = part - (high - value)
        if low:
            parts[kept] = low
            kept += 1
        value = high
    parts[kept:] = [value]
