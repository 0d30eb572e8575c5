"""Mistakes that are made in several places alike: in all layers of a list, in all calls of a function, in some of them.

What a mistake makes of a node is often an array that was computed from the reference's values: where there is another
mistake before it, it has to be made once more of what that one gives. So mistakes are made in turn then, from the first
place on, each in the code that holds those before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from parity.causes.attempts import WRONG, Attempt, Fixed, Problem
from parity.causes.graph_nodes import Changes
from parity.causes.node_kinds import MOVES

Made = Callable[[Problem], Iterator[Attempt]]

_MOST_ALIKE = 12_000  # mistakes of one family that are looked at for those that are alike
_MOST_IN_TURN = 10_000  # that are gone through to make some in turn, for one family
LAYER = re.compile(r"(?<=[./_])\d+(?=[./_])")  # the number of a layer, not that in its name (norm1)
_MOST_PLACES = 5  # of which all choices are tried


@dataclass
class _Kind:
    """Mistakes of one kind: their name, their words, which of several at a place; by place.

    `exact` says whether numbers in the words count: 4 groups for 2 are 4 groups, whichever of all numbers that is.
    """

    key: str
    words: str
    number: int
    exact: bool
    places: dict[int, Attempt] = field(default_factory=dict)

    def fixed(self) -> bool:
        """Whether one behind the first is an array that was made of the reference's values."""
        later = sorted(self.places)[1:]
        return any(isinstance(change, Fixed) for p in later for change in self.places[p].changes.values())

    def those(self, places: tuple[int, ...]) -> tuple[int, ...]:
        """Identity of the mistakes at some places: several kinds may hold the same ones."""
        return tuple(id(self.places[p]) for p in places)

    def among(self, places: tuple[int, ...]) -> Attempt:
        """Those at some places at once."""
        changes = {at: change for p in places for at, change in self.places[p].changes.items()}
        every = "all " if len(places) == len(self.places) else ""
        text = f"{self.places[places[0]].text}, and so in {every}{len(places)} places like it"
        strange = any(self.places[p].strange for p in places)
        return Attempt(self.key, text if every else f"{text}, of {len(self.places)}", changes, strange)


def everywhere(problem: Problem, family: Made) -> Iterator[Attempt]:
    """Mistakes of a family that are made in several places at once.

    Attempts count as the same whose words differ by numbers alone: everywhere, then those of one line of the model's
    code, then those that belong to or follow layers whose names differ by numbers alone or end alike, then some of a
    few.
    """
    kinds = _kinds(problem, family)
    tried: set[tuple] = set()
    groups = []
    for kind in kinds:
        same = kind.those(tuple(kind.places))
        if len(kind.places) > 1 and same not in tried:
            tried.add(same)
            groups.append(kind)
    for kind in groups:
        if problem.spent:
            return
        yield kind.among(tuple(kind.places))
    left = _MOST_IN_TURN
    for kind in groups:
        if kind.fixed() and left > 0 and not problem.spent:
            changes, gone = _in_turn(problem, family, kind, left)
            left -= gone
            if changes is not None:
                yield kind.among(tuple(kind.places))._replace(changes=changes)
    for kind in groups:
        for places in _choices(tuple(kind.places)):
            if problem.spent:
                return
            if not kind.fixed() and (same := kind.those(places)) not in tried:
                tried.add(same)
                yield kind.among(places)


def _choices(places: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Some of a few places, at least two."""
    if len(places) <= _MOST_PLACES:
        for count in range(len(places) - 1, 1, -1):
            yield from itertools.combinations(places, count)


def _kinds(problem: Problem, family: Made) -> list[_Kind]:
    """What a family tries, by kind and by where."""
    kinds: dict[tuple, _Kind] = {}
    for attempt, ways in _numbered(problem, itertools.islice(family(problem), _MOST_ALIKE)):
        place = _place(attempt)
        node = problem.region.node(place)
        behind = _plain(" ".join(map(problem.words, node.parents[:1])))
        named = re.search(r"the output of \S*?(\w+)$", behind)  # the last part of a layer's name, as of several blocks'
        wheres = ["", f"line {node.line}", f"behind {behind}", f"at {LAYER.sub('*', problem.words(place))}"]
        wheres += [] if named is None else [f"behind any {named[1]}"]
        for where, (words, number, exact) in itertools.product(dict.fromkeys(wheres), ways):
            kind = kinds.setdefault((attempt.key, words, number, where), _Kind(attempt.key, words, number, exact))
            kind.places[place] = attempt
    return [_Kind(k.key, k.words, k.number, k.exact, dict(sorted(k.places.items()))) for k in kinds.values()]


def _numbered(problem: Problem, attempts: Iterator[Attempt]) -> Iterator[tuple[Attempt, list[tuple[str, int, bool]]]]:
    """Attempts, each with its words, its number among those of them at the same place, and whether they are exact."""
    seen: dict[tuple, int] = {}
    for attempt in attempts:
        exact, place, ways = _told(problem, attempt), _place(attempt), []
        apart = [p - place for p in sorted(attempt.changes)]  # of changes that belong together
        for words in dict.fromkeys((_plain(exact), exact, f"{_plain(exact)} {apart}" if len(apart) > 1 else exact)):
            same = attempt.key, words, place
            seen[same] = seen.get(same, -1) + 1
            ways.append((words, seen[same], words != _plain(exact)))
        yield attempt, ways


def _place(attempt: Attempt) -> int:
    return min(attempt.changes, default=0)


def _told(problem: Problem, attempt: Attempt) -> str:
    """Its words but for what the places that it changes are called."""
    text, nodes = attempt.text, [problem.region.node(p) for p in attempt.changes]
    places = {*attempt.changes, *(p for node in nodes for p in node.parents)}
    grand = {q for p in places if problem.region.node(p).op in MOVES for q in problem.region.node(p).parents}
    for words in sorted({problem.words(p) for p in places | grand}, key=len, reverse=True):
        text = text.replace(words, "*") if len(words) > 3 else text
    return text


def _plain(words: str) -> str:
    return re.sub(r"\d+", "*", words)


def _in_turn(problem: Problem, family: Made, kind: _Kind, most: int) -> tuple[Changes | None, int]:
    """All changes of a kind, each made of what those before it give; None if one can't be; and how many were seen."""
    first, *rest = kind.places
    changes, seen = dict(kind.places[first].changes), 0
    for place in rest:
        try:
            inner = problem.under(changes)
        except WRONG:
            return None, seen
        found = None
        wanted = kind.words, kind.number, kind.exact
        for attempt, ways in _numbered(inner, itertools.islice(family(inner), most - seen)):
            seen += 1
            if (attempt.key, _place(attempt)) == (kind.key, place) and wanted in ways:
                found = attempt
                break
        problem.region.work += inner.region.work
        if found is None:
            return None, seen
        changes |= found.changes
    return changes, seen
