"""What a difference of two recorded runs is, and how single things of them are held to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.run.metrics import MetricsRow
from parity.bounds import judging

# In float64: a step is a few thousand roundings, and each step doubles what the one before left, at most; all are
# fractions of the largest value of the array. Single numbers both sides compute in Python's floats.
STEP_LIMIT, GROWTH, LAST_LIMIT = 1e-13, 2.0, 1e-9
ROUNDING = 1e-14


@dataclass(frozen=True)
class Difference:
    """Where two sides part.

    Attributes:
        step: number of the step, from 1; 0 before the first.
        quantity: what differs, such as `learning rate` or `weights conv1.weight`.
        text: both values.
    """

    step: int
    quantity: str
    text: str

    def __str__(self) -> str:
        where = f"step {self.step}" if self.step else "before the first step"
        return f"{where}, {self.quantity}: {self.text}"


@dataclass
class Largest:
    """The largest fraction of a limit that was used by quantities that agree."""

    fraction: float = 0.0
    quantity: str = "nothing"
    step: int = 0

    def __str__(self) -> str:
        return f"at most {self.fraction:.2g} of a limit, by {self.quantity} at step {self.step}"


def arrays(
    step: int, quantity: str, one: NDArray[Any] | None, other: NDArray[Any] | None, limit: float, largest: Largest
) -> Iterator[Difference]:
    """In what an array is not the other, by more than a part `limit` of the other's largest value."""
    scale = 0.0 if other is None else float(np.max(np.abs(other), initial=0.0))
    judged = judging.judge(one, other, limit * scale)
    if not judged.equal:
        values = f"at {judged.index} JAX {judged.ours!r}, PyTorch {judged.theirs!r}; largest value {scale:.3g}"
        yield Difference(step, quantity, f"{judged.verdict} {judged.detail} {values}".replace("  ", " "))
    elif judged.fraction > largest.fraction:
        largest.fraction, largest.quantity, largest.step = judged.fraction, quantity, step


def close(one: float, other: float, limit: float) -> bool:
    """Whether two numbers differ by no more than a part of the second."""
    return judging.judge(one, other, limit * abs(other)).equal


def scalars(step: int, quantity: str, one: object, other: object) -> Iterator[Difference]:
    """That two values are not the same."""
    if one != other:
        yield Difference(step, quantity, f"{one} and {other}")


def rows(what: str, found: list[MetricsRow], expected: list[MetricsRow]) -> Iterator[Difference]:
    """In what the rows of metrics that were found are not those expected, but for their speeds."""
    for one, other in zip(found, expected, strict=False):
        for name, a in vars(one).items():
            b = getattr(other, name)
            if name == "images_per_second":
                continue
            same = close(a, b, 10 * ROUNDING) if isinstance(a, float) and isinstance(b, float) else a == b
            if not same:
                yield Difference(other.step, f"{what}, {other.split} {name}", f"the file has {a!r}, not {b!r}")
    if len(found) != len(expected):
        rows = [[(row.step, row.split) for row in side] for side in (found, expected)]
        yield Difference(0, what, f"the file has rows {rows[0]}, not {rows[1]}")
