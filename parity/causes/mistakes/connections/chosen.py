"""Mistakes of which nothing but choices can tell, such as which code is nearest: several may make the same choices.

Values that a mistake gives agree with JAX's to fifteen digits, or don't. Whole numbers that were chosen by such values,
by argmin or topk or a comparison, are the same for many values: a mistake that makes JAX's choices needn't be the one.
So the others that make them are looked for, too, and told with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from parity.causes.cause import explains
from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import Attempt, Problem

_MOST_TOLD = 3
_MOST_FOUND = 8  # sorts of them that are looked for, of each so many
_MOST_ALIKE = 6
_ADDED = "_added"
_MORE_WORK = 60_000_000  # elements that may be computed for the others


class Alike(NamedTuple):
    """Mistakes that make the choices which one layer got, each with what it leaves of the difference before."""

    found: list[tuple[Attempt, float]]
    before: float


def only_choices(region: Region, changes: Changes) -> bool:
    """Whether mistakes in some values show in nothing but what was chosen by these."""
    waiting = [p for p in changes if p in region.inside]
    if not waiting or not all(_of_numbers(region, p) and region.of_data(p) for p in waiting):
        return False
    seen = set(waiting)
    while waiting:
        place = waiting.pop()
        if place == region.sink:
            return not _of_numbers(region, place)
        new = [p for p in region.users(place) if p not in seen and (_of_numbers(region, p) or p == region.sink)]
        seen.update(new)
        waiting += new
    return True


def alike(
    problem: Problem, attempts: Iterator[Attempt], before: float, earlier: Iterable[Alike] = ()
) -> list[tuple[Attempt, float]]:
    """The mistakes that explain a difference in what is chosen, the likely ones first.

    What is left out or another number is likelier than a function that PyTorch doesn't have.

    Args:
        problem: to be explained.
        attempts: what is tried.
        before: the difference to be explained.
        earlier: what explains the choices that other layers got; it is looked for as long as may be.
    """
    found: dict[tuple[str, str], tuple[Attempt, float]] = {}
    most, known = problem.region.work + _MORE_WORK, {_kind(each) for one in earlier for each, _ in one.found}
    for attempt in attempts:
        enough = len({_sort(key) for key, _ in found}) >= _MOST_FOUND and not known - {*found}
        if enough or problem.region.work > most:
            break
        same = sum(_sort(key) == _sort(attempt.key) for key, _ in found)
        if same < _MOST_ALIKE or _kind(attempt) in known:
            after = problem.left(attempt.changes)
            if explains(before, after, problem.tolerance + attempt.roundings):
                found.setdefault(_kind(attempt), (attempt, after))
    return sorted(found.values(), key=lambda each: 1 if _sort(each[0].key) == _ADDED else 2 * each[0].strange)


def narrowed(choices: dict[str, Alike]) -> dict[str, Alike]:
    """What layers got whose names differ by numbers alone, by the mistakes that explain it for all of them.

    Args:
        choices: by the layer's path.

    Returns:
        Those of which some are left that aren't all.
    """
    groups: dict[str, dict[str, Alike]] = {}
    for path, alike in choices.items():
        groups.setdefault(_plain(path), {})[path] = alike
    kept: dict[str, Alike] = {}
    for group in groups.values():
        common = set.intersection(*({_kind(attempt) for attempt, _ in alike.found} for alike in group.values()))
        for path, (found, before) in group.items():
            left = [each for each in found if _kind(each[0]) in common]
            if 0 < len(left) < len(found):
                kept[path] = Alike(left, before)
    return kept


def told(found: list[tuple[Attempt, float]]) -> str:
    """Mistakes that make the same choices, in words."""
    texts = list({attempt.key: attempt.text for attempt, _ in reversed(found)}.values())[::-1]  # the first of each
    count = len(texts) - _MOST_TOLD
    more = f"; or {count} {'other' if count == 1 else 'others'}" if count > 0 else ""
    alike = "; or, which makes the same choices, ".join(texts[:_MOST_TOLD]) + more
    return f"{alike}; nothing but what is chosen tells of it, so it may be yet another mistake there"


def _of_numbers(region: Region, place: int) -> bool:
    values = region.value(place)
    values = values[0] if isinstance(values, (tuple, list)) and values else values  # such as topk's, and its indices
    return bool(np.issubdtype(np.asarray(values).dtype, np.floating))


def _sort(key: str) -> str:
    """What sort of mistake one is: what is added where PyTorch has nothing is one sort."""
    return _ADDED if key.endswith(_ADDED) else key


def _kind(attempt: Attempt) -> tuple[str, str]:
    return attempt.key, _plain(attempt.text)


def _plain(words: str) -> str:
    return re.sub(r"\d+", "*", words)
