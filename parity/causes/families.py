"""All mistakes that are tried on the code between layers, a family after the other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import numpy as np

from parity.causes import (
    added_numbers,
    attention,
    caps,
    choices,
    distances,
    functions,
    heads,
    masks,
    moved_factors,
    operations,
    orders,
    other_places,
    rotary,
    rounded_values,
    sinusoids,
    sums,
    tokens,
)
from parity.causes.attempts import WRONG, Attempt, Problem
from parity.causes.precision import coarser

Family = Callable[[Problem], Iterator[Attempt]]

# Likely ones first: of several mistakes that give the same numbers the first one is named.
FAMILIES: tuple[Family, ...] = (
    sums.handed_on,
    attention.attempts,
    masks.attempts,
    heads.attempts,
    rotary.attempts,
    sinusoids.attempts,
    caps.attempts,
    choices.attempts,
    distances.attempts,
    functions.attempts,
    sums.attempts,
    operations.attempts,
    sums.made_elsewhere,
    tokens.attempts,
    orders.attempts,
    moved_factors.attempts,
    added_numbers.attempts,
    other_places.attempts,
    sums.sources,
    sums.dropped,
    sums.added,
    sums.factors,
    lambda problem: rounded_values.rounded(problem, coarser("float64")),
)

_MOST_EVERYWHERE = 3000  # mistakes of one family that are looked at for those that are alike

# Of these two at once are tried.
SIMPLE: tuple[Family, ...] = (
    attention.attempts,
    masks.attempts,
    heads.attempts,
    rotary.attempts,
    choices.attempts,
    functions.attempts,
    sums.attempts,
    operations.attempts,
    orders.attempts,
)


# Of these mistakes that are made in all places alike are tried: in the code of functions, which have no layers; and in
# that between layers, where a list of layers is called in a comprehension, say.
ALIKE: tuple[Family, ...] = (*SIMPLE, tokens.attempts)
ALIKE_BETWEEN: tuple[Family, ...] = (tokens.attempts,)


def simple(problem: Problem) -> Iterator[Attempt]:
    """Those mistakes of which two at once are tried."""
    return attempts(problem, SIMPLE)


def everywhere(problem: Problem, families: tuple[Family, ...]) -> Iterator[Attempt]:
    """Mistakes that are made in all layers of a list, or in all calls of a function, at once.

    Attempts count as the same whose words differ by numbers alone: everywhere, then those that follow layers whose
    names differ by numbers alone.
    """
    for family in families:
        kinds: dict[tuple, dict[int, Attempt]] = {}
        seen: dict[tuple, int] = {}
        for attempt in itertools.islice(attempts(problem, (family,)), _MOST_EVERYWHERE):
            kind, place = (attempt.key, _plain(attempt.text)), min(attempt.changes, default=0)
            seen[(*kind, place)] = seen.get((*kind, place), -1) + 1
            behind = _plain(" ".join(map(problem.words, problem.region.node(place).parents[:1])))
            for where in ("", behind):
                kinds.setdefault((*kind, seen[(*kind, place)], where), {})[place] = attempt
        tried: set[tuple] = set()
        for (key, words, number, _), alike in kinds.items():
            same = (key, words, number, *alike)
            if len(alike) > 1 and same not in tried and not problem.spent:
                tried.add(same)
                changes = {at: change for each in alike.values() for at, change in each.changes.items()}
                first = alike[min(alike)]
                yield Attempt(key, f"{first.text}, and so in all {len(alike)} places like it", changes)


def _plain(words: str) -> str:
    return re.sub(r"\d+", "*", words)


def attempts(problem: Problem, families: tuple[Family, ...] = FAMILIES) -> Iterator[Attempt]:
    """Every mistake, as long as there is something left to spend."""
    for family in families:
        made = family(problem)
        while not problem.spent:
            try:
                with np.errstate(all="ignore"):  # what a mistake leads to may well be infinite
                    attempt = next(made, None)
            except WRONG:
                break  # this code isn't what the family is about
            if attempt is None:
                break
            yield attempt
