"""Two mistakes at once in the code between two layers, where none by itself explains what came out.

Each likely mistake is left in PyTorch's code, and the others are tried on what that has become. First comes of each
kind of mistake the one that leaves the least difference by itself, then the second ones, and so on. How many are tried
is bounded by counts, not by seconds, so that a slow machine names the same causes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.causes.cause import explains
from parity.causes.mistakes.attempts import WRONG, Attempt, Problem

MOST_PAIRS = 60_000  # that are tried for one model
_MOST_HERE = 15_000  # for one difference
_MOST_SINGLE = 1500  # mistakes that are ranked
_MOST_FIRST = 60  # of them that are left in


class Pair(NamedTuple):
    """Two mistakes that explain what was observed together.

    Attributes:
        first: one of them.
        second: the other one.
        left: the difference that both leave.
    """

    first: Attempt
    second: Attempt
    left: float

    @property
    def both(self) -> Attempt:
        """Both as one, for what follows from them."""
        key, text = f"{self.first.key}+{self.second.key}", f"{self.first.text}; and {self.second.text}"
        return Attempt(key, text, {**self.first.changes, **self.second.changes})


def find(
    problem: Problem, attempts: Callable[[Problem], Iterator[Attempt]], before: float, most: int
) -> tuple[Pair | None, int]:
    """Two mistakes that give what was observed, and how many pairs were tried; None if there are none.

    Args:
        problem: that no single mistake explains.
        attempts: gives the mistakes that can be made in a problem.
        before: the difference that is to be explained.
        most: pairs that may still be tried for this model.
    """
    tried, most = 0, min(most, _MOST_HERE)
    for first in _likely(problem, attempts(problem)):
        if tried >= most or problem.spent:
            break
        if _flattens(problem, first):
            continue
        try:
            with np.errstate(all="ignore"):
                inner = problem.under(first.changes)
        except WRONG:
            continue
        for second in itertools.islice(attempts(inner), most - tried):
            tried += 1
            left = inner.left(second.changes)
            if second.key != first.key and explains(before, left, problem.tolerance):
                if _flattens(inner, second):
                    continue
                return Pair(*_in_order(first, second), left), tried
        problem.region.work += inner.region.work
    return None, tried


def _flattens(problem: Problem, attempt: Attempt) -> bool:
    """Whether a mistake makes all values of a node alike: one that wipes out what the other changes shows nothing."""

    def alike(values: object) -> bool:
        return isinstance(values, np.ndarray) and values.size > 1 and bool((values == values.flat[0]).all())

    with np.errstate(all="ignore"):
        for place, change in attempt.changes.items():
            try:
                if alike(change(problem.region.value)) and not alike(problem.region.value(place)):
                    return True
            except WRONG:
                return False
    return False


def _likely(problem: Problem, attempts: Iterable[Attempt]) -> list[Attempt]:
    """Of each kind the mistake that brings PyTorch's values nearest to what was observed, then the second one of each.

    Of those that give the same values the first one.
    """
    kinds: dict[str, list[tuple[float, int, Attempt]]] = {}
    seen: set[tuple[int, ...] | bytes] = set()
    for number, attempt in enumerate(itertools.islice(attempts, _MOST_SINGLE)):
        made = problem.made(attempt.changes)
        if made is None or (made.shape == problem.right.shape and np.array_equal(made, problem.right)):
            continue
        same = np.round(made, 9).tobytes()
        if same in seen:
            continue
        seen.add(same)
        kinds.setdefault(_kind(attempt.key), []).append((_distance(made, problem.observed), number, attempt))
    ranked = []
    for alike in kinds.values():
        ordered = sorted(alike, key=lambda each: each[:2])
        ranked += [(place, *each) for place, each in enumerate(ordered)]
    return [attempt for *_, attempt in sorted(ranked, key=lambda each: each[:3])[:_MOST_FIRST]]


def _kind(key: str) -> str:
    """What sort of mistake one is: one function for another, one too many, or whatever its name says."""
    return "activation" if key.startswith("activation_") else "added" if key.endswith("_added") else key


def _distance(made: NDArray, observed: NDArray) -> float:
    """How far apart, in the Euclidean norm of the values that are finite on both sides; infinite for other shapes."""
    if made.shape != observed.shape:
        return float("inf")
    finite = np.isfinite(made) & np.isfinite(observed)
    return float(np.linalg.norm(np.where(finite, made - observed, 0.0))) if finite.any() else float("inf")


def _in_order(one: Attempt, two: Attempt) -> tuple[Attempt, Attempt]:
    """As PyTorch runs the nodes that they change."""
    return (one, two) if min(one.changes, default=0) <= min(two.changes, default=0) else (two, one)
