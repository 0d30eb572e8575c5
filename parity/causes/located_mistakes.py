"""A mistake that explains one of the values that a function computes on the way, or its result; several told as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from parity.bounds.judging import farthest
from parity.causes import families
from parity.causes.attempts import WRONG, Attempt, Problem
from parity.causes.cause import explains
from parity.causes.jax_values import JaxValues
from parity.causes.parameters import Cause

_PLACES = re.compile(r", and so in (?:all )?(\d+) places like it(?:, of \d+)?|, in one place of \d+")
_MOST_LIKE = 2000  # mistakes like one that are looked at, to know whether it was made in all places


class Hit(NamedTuple):
    """A mistake that gives one of the function's own values, and what the difference falls from and to.

    `gain` is how many other values it makes right, too; `anchor` the node whose values it was found by.
    """

    attempt: Attempt
    before: float
    after: float
    family: int
    gain: int = 1
    anchor: int = -1


@dataclass
class Here(Problem):
    """A difference in what one product gives: any value of the function's that nothing of PyTorch's is will do."""

    values: JaxValues = field(default_factory=lambda: JaxValues([]))
    known: frozenset[int] = frozenset()

    def hit(self, attempt: Attempt) -> tuple[float, float] | None:
        """What the difference falls from and to if a mistake gives one of the function's values; None if it doesn't."""
        try:
            with np.errstate(all="ignore"):
                made = np.asarray(self.region.changed(attempt.changes))
        except WRONG:
            return None
        if made.size != self.right.size:
            return None
        found = self.values.find(made, self.known)
        return None if found is None else (self.values.apart(found[0], self.right), found[1])


def attempts(problem: Problem, several: bool, likely: Iterable[int] = ()) -> Iterator[tuple[int, Attempt]]:
    """All mistakes, those of likely families first; or those that are made in several places at once."""
    for family in () if several else dict.fromkeys((*likely, *range(len(families.FAMILIES)))):
        for attempt in families.attempts(problem, (families.FAMILIES[family],)):
            yield family, attempt
    for family in families.ALIKE if several else ():
        for attempt in families.everywhere(problem, (family,)):
            yield families.FAMILIES.index(family), attempt


def similar(problem: Problem, hit: Hit) -> Iterator[Attempt]:
    """Mistakes like one that was found, in other code."""
    for attempt in families.attempts(problem, (families.FAMILIES[hit.family],)):
        if attempt.key == hit.attempt.key and _plain(attempt) == _plain(hit.attempt):
            yield attempt


def nodes_of_all(problem: Problem, hit: Hit) -> set[int] | None:
    """Nodes that mistakes like one change, wherever they can be made in some code; None if not all were looked at."""
    nodes: set[int] = set()
    for count, attempt in enumerate(similar(problem, hit)):
        if count == _MOST_LIKE:
            return None
        nodes.update(attempt.changes)
    return None if problem.spent else nodes


def _plain(attempt: Attempt) -> str:
    """A mistake in words without places and numbers."""
    return re.sub(r"\d+", "*", _PLACES.sub("", attempt.text))


def at_the_end(problem: Problem, tries: Iterator[tuple[int, Attempt]]) -> Hit | None:
    """Of some mistakes that which explains the result, a plain one if there is one."""
    before, strange = farthest(problem.right, problem.observed), None
    for family, attempt in tries:
        after = problem.left(attempt.changes)
        if explains(before, after, problem.tolerance):
            hit = Hit(attempt, before, after, family)
            if not attempt.strange:
                return hit
            strange = strange or hit
    return strange


def standing(hits: list[Hit], inside: set[int]) -> list[Hit]:
    """The mistakes in some code of which a later one hasn't changed all that they change: that one is the whole."""
    nodes = [hit.attempt.changes.keys() for hit in hits]
    later = [set().union(*nodes[i + 1 :]) for i in range(len(nodes))]
    return [hit for hit, own, more in zip(hits, nodes, later, strict=True) if own & inside and own - more]


def told(hits: list[Hit], every: Callable[[Hit], set[int] | None]) -> Iterator[Cause]:
    """Mistakes as causes, those that are alike as one: in all places like it, where it is known that there are no more.

    Args:
        hits: that were found.
        every: gives the nodes that a mistake would change if it were made wherever it can be; None if that isn't known.
    """
    alike: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        alike.setdefault((hit.attempt.key, _plain(hit.attempt)), []).append(hit)
    for several in alike.values():
        first = several[0]
        text = first.attempt.text
        places = [int(match[1] or 1) if (match := _PLACES.search(hit.attempt.text)) else 1 for hit in several]
        if sum(places) > 1:
            nodes = every(first)
            changed = {node for hit in several for node in hit.attempt.changes}
            number = f"all {sum(places)}" if nodes and nodes <= changed else f"{sum(places)}"
            text = f"{_PLACES.sub('', text)}, and so in {number} places like it"
        yield Cause(first.attempt.key, "jax", text, first.before, first.after)
