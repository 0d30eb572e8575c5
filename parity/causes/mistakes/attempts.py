"""What is tried on the code between layers: a mistake, made in a graph of what PyTorch ran there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.cause import alike, distinct, explains
from parity.causes.clock import Clock
from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Changes, Get
from parity.causes.numpy_operations.table import CannotRun

# Elements that may be computed for one divergence. A number of values and not of seconds, so that a slow machine names
# the same causes.
MOST_WORK = 600_000_000

# What a mistake that can't be made in some code ends with.
WRONG = (CannotRun, ValueError, IndexError, TypeError, ZeroDivisionError, AttributeError, KeyError)

# Different values that must agree on a number that was found from them: one agrees with any.
FEWEST = 3

_STEPS = 8
_NOTHING = 1e-9  # of a factor, the least that is told


class Attempt(NamedTuple):
    """One mistake.

    Attributes:
        key: short name.
        text: what it is, in words.
        changes: what it makes of which nodes.
        strange: whether nobody would make it who didn't mean to: a plainer one that gives the same is named first.
        roundings: difference that may be left besides, of what is rounded with the mistake and matters nowhere without.
    """

    key: str
    text: str
    changes: Changes
    strange: bool = False
    roundings: float = 0.0


@dataclass
class Problem:
    """A difference between what the code before one layer gives on both sides.

    Attributes:
        region: the reference's code.
        observed: what JAX gave, in PyTorch's layout.
        tolerance: largest difference that counts as none.
        words: names a node, by its place, for people.
        elsewhere: other arrays that are about, with what they are: what layers gave and got.
        most: elements that may be computed.
        measures: whether numbers in mistakes are looked for, see `measured`.
        clock: of the whole search.
        layer: key of the record of the layer that gets it; empty for none.
        code: gives the code before other layers, the nearest first, each with what it gives in words.
    """

    region: Region
    observed: NDArray
    tolerance: float
    words: Callable[[int], str]
    elsewhere: Sequence[tuple[str, Callable[[], NDArray]]] = ()
    most: int = MOST_WORK
    measures: bool = True
    clock: Clock = field(default_factory=Clock)
    layer: str = ""
    code: Callable[[], Iterator[tuple[str, Region]]] = lambda: iter(())
    right: NDArray = field(init=False)
    _tried: dict[tuple | None, float] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.right = self.region.value(self.region.sink)

    @property
    def spent(self) -> bool:
        """Whether no more may be tried."""
        return self.region.work > self.most or self.clock.over

    def cut_short(self) -> str:
        """That the search ended before all was tried, in words; empty if it didn't."""
        if self.clock.over:
            return self.clock.told
        if self.region.work > self.most:
            return f"the search for causes ended after {self.most:,} values, before all had been tried"
        return ""

    def left(self, changes: Changes) -> float:
        """The difference that a mistake leaves; infinite where it can't be made, or changes nothing."""
        trial, changes = self._trial(changes)
        if trial in self._tried:
            return self._tried[trial]
        made = self.made(changes)
        left = float("inf") if made is None else _apart(made, self.observed)
        if trial is not None:
            self._tried[trial] = left
        return left

    def _trial(self, changes: Changes) -> tuple[tuple | None, Changes]:
        """Identity of what a mistake in one place makes there, and the mistake: many families make the same.

        None where it is made in several places, or can't be made.
        """
        if len(changes) != 1:
            return None, changes
        ((place, change),) = changes.items()
        try:
            with np.errstate(all="ignore"):
                made = change(self.region.value)
        except WRONG:
            return None, changes
        if not isinstance(made, np.ndarray):
            return None, changes
        content = hashlib.blake2b(np.ascontiguousarray(made).tobytes(), digest_size=16).digest()
        return (place, made.dtype.str, made.shape, content), {place: lambda get: made}

    def made(self, changes: Changes) -> NDArray | None:
        """What a mistake gives, in the shape of what was observed if it can be; None where it can't be made."""
        try:
            with np.errstate(all="ignore"):
                predicted = np.asarray(self.region.changed(changes))
        except WRONG:
            return None
        if predicted.shape != self.observed.shape:
            predicted = next(channels_moved(predicted, self.observed.shape), predicted)
        if predicted.shape != self.observed.shape:
            if predicted.size != self.observed.size or predicted.ndim == self.observed.ndim:
                return None
            predicted = predicted.reshape(self.observed.shape)
        return predicted

    def under(self, changes: Changes) -> Problem:
        """The same, with a mistake left in the reference's code."""
        return replace(self, region=self.region.with_mistakes(changes), measures=False)

    def others(self, like: NDArray) -> Iterator[tuple[str, NDArray]]:
        """Arrays that are about, of the shape of one, if need be with the channels moved: last, or behind examples."""
        for name, load in self.elsewhere:
            array = load()
            if array.shape != like.shape:
                array = next(channels_moved(array, like.shape), array)
            if array.shape == like.shape and np.issubdtype(array.dtype, np.floating):
                yield name, np.asarray(array, np.float64)


def channels_moved(array: NDArray, shape: tuple[int, ...]) -> Iterator[NDArray]:
    """An array of another shape with its channels moved to the end, or from there, if it has this shape then."""
    if array.ndim == len(shape) > 2:
        moved = np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1)
        yield from (each for each in moved if each.shape == shape)


def _apart(made: NDArray, observed: NDArray) -> float:
    """The largest difference where both are finite; infinite if they aren't in the same places, or nowhere."""
    finite = np.isfinite(made)
    if finite.all() or not finite.any() or not np.array_equal(finite, np.isfinite(observed)):
        return farthest(made, observed)
    return farthest(made[finite], observed[finite])


def _tell(problem: Problem) -> bool:
    """Whether so many different values are wrong that they can agree on a number, or not."""
    with np.errstate(all="ignore"):
        wrong = np.abs(problem.right - problem.observed) > problem.tolerance
    return min(distinct(each[wrong]) for each in (problem.right, problem.observed)) >= FEWEST


def explaining(problem: Problem, attempts: Iterator[Attempt], before: float) -> list[tuple[Attempt, float]]:
    """The strange mistakes that explain a difference until a plain one does, itself last; and what each leaves."""
    found = []
    for attempt in attempts:
        after = problem.left(attempt.changes)
        tolerance = problem.tolerance + attempt.roundings
        if explains(before, after, tolerance) and all(attempt.key != other.key for other, _ in found):
            found.append((attempt, after))
            if not attempt.strange:
                break
    return found


class Fixed:
    """A change to values that were computed from the reference's."""

    def __init__(self, array: NDArray) -> None:
        self.array = array

    def __call__(self, get: Get) -> NDArray:
        """These values, whatever else was changed."""
        return self.array


def value(array: NDArray) -> Callable[[Get], NDArray]:
    """A change to these values."""
    return Fixed(array)


def each_and_all(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    """Mistakes of one kind made everywhere at once, as when a function is used in several places, then one by one."""
    kinds: dict[tuple[str, str, int], list[Attempt]] = {}
    seen: dict[tuple, int] = {}
    for attempt in attempts:
        same = (attempt.key, attempt.text, *attempt.changes)  # another one of the same words at the same place
        seen[same] = seen.get(same, -1) + 1
        kinds.setdefault((attempt.key, attempt.text, seen[same]), []).append(attempt)
    for (key, text, _), several in kinds.items():
        if len(several) > 1:
            yield Attempt(key, text, {place: change for each in several for place, change in each.changes.items()})
        for each in several:
            yield each if len(several) == 1 else each._replace(text=f"{text}, in one place of {len(several)}")


def measured(
    problem: Problem, made: Callable[[float], Changes], start: float, right: float | None = None
) -> float | None:
    """The number in a mistake that explains what was observed, by Gauss and Newton; None if there is none.

    Nor if too few values tell it, or if it is the right one but for a rounding.

    Args:
        problem: to be explained.
        made: the mistake with this number.
        start: where the search begins.
        right: the number of the reference; None if it has none.
    """
    if not problem.measures or problem.right.shape != problem.observed.shape:
        return None
    if not _tell(problem):
        return None
    number, before = start, farthest(problem.right, problem.observed)
    for step in range(_STEPS):
        if problem.spent:
            return None
        small = 1e-5 * max(abs(number), 1.0)
        try:
            with np.errstate(all="ignore"):
                here = np.asarray(problem.region.changed(made(number)))
                slope = (np.asarray(problem.region.changed(made(number + small))) - here) / small
        except (CannotRun, ValueError, IndexError):
            return None
        if here.shape != problem.observed.shape or not np.isfinite(slope).all():
            return None
        after = farthest(here, problem.observed)
        if within(after, problem.tolerance):
            nothing = right == 1.0 and abs(number) < _NOTHING  # no factor, but something that is left out
            same = nothing or (right is not None and alike(number, right))
            return None if same or _through_one_value(problem.region, made(number)) else number
        if step > 2 and not after < 0.5 * before:
            return None
        before = min(before, after) if step else before
        size = float(np.vdot(slope, slope))
        move = float(np.vdot(slope, problem.observed - here)) / size if size > 0 else 0.0
        if not np.isfinite(move) or move == 0:
            return None
        number += move
    return None


def _through_one_value(region: Region, changes: Changes) -> bool:
    """Whether all that a mistake changes goes through a single value behind it: then any number can give that one."""
    waiting, seen = [p for p in changes if p in region.inside], set(changes)
    while waiting:
        place = waiting.pop()
        if place == region.sink:
            return False
        new = [p for p in region.users(place) if p not in seen and np.size(region.value(p)) > 1]
        seen.update(new)
        waiting += new
    return True
