"""What an evaluation found, as JSON for programs and as a table for people."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from alexnet_io.data.sources.synset_names import readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOP = 5


@dataclasses.dataclass(frozen=True)
class ClassCount:
    """How many examples of one class there were, and how many were recognised."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """Share recognised, or None if there were no examples."""
        return self.correct / self.total if self.total else None


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        examples: how many were counted.
        top1: share whose first guess is right.
        top5: share whose first min(5, classes) guesses hold the right one.
        loss: mean cross-entropy in nats.
        per_class: counts by class name, in the order of the output units.
        confusion: (classes, classes) int64, rows are the true class, columns the guess.
    """

    examples: int
    top1: float
    top5: float
    loss: float
    per_class: dict[str, ClassCount]
    confusion: NDArray[np.int64] = dataclasses.field(compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain Python numbers under examples, top1, top5, loss and per_class."""
        return {
            "examples": self.examples,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "per_class": {
                name: {"correct": count.correct, "total": count.total, "accuracy": count.accuracy}
                for name, count in self.per_class.items()
            },
        }

    def to_text(self) -> str:
        """A table for people, one line per class."""
        shown = {name: readable(name) for name in self.per_class}
        width = max(len(name) for name in (*shown.values(), "examples"))
        digits = len(str(self.examples))
        lines = [
            f"{'examples':<{width}}  {self.examples}",
            f"{'top-1':<{width}}  {self.top1:.2%}",
            f"{f'top-{min(TOP, len(self.per_class))}':<{width}}  {self.top5:.2%}",
            f"{'loss':<{width}}  {self.loss:.4f}",
            "",
        ]
        for name, count in self.per_class.items():
            share = "     -" if count.accuracy is None else f"{count.accuracy:>7.2%}"
            lines.append(f"{shown[name]:<{width}}  {share:>7}  {count.correct:>{digits}} of {count.total:>{digits}}")
        return "\n".join(lines)
