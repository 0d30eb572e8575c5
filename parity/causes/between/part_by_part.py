"""A mistake in each of several arrays that are joined at the end, as what every layer keeps is: looked for in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.graph.graph import Region
from parity.causes.mistakes.attempts import WRONG, Attempt, Problem, explaining

_MOST_PARTS = 16


def explain(
    problem: Problem, families: Callable[[Problem], Iterator[Attempt]], before: float
) -> list[tuple[Attempt, float]]:
    """One mistake for every part that differs, as one for the whole; none where one of them has none.

    Args:
        problem: to be explained.
        families: what is tried on a part.
        before: the difference.
    """
    found: dict[int, tuple[Attempt, float]] = {}
    parts = _parts(problem)
    for number, (place, observed) in enumerate(parts):
        if problem.spent:
            return []
        part = _alone(problem, place, observed)
        if part is None or within(farthest(part.right, observed), problem.tolerance):
            continue
        each = explaining(part, families(part), farthest(part.right, observed))
        problem.region.work += part.region.work
        if not each or each[-1][0].strange:
            return []
        found[number] = each[-1]
    if len(found) < 2:  # of one the whole's own search has found it
        return []
    first = next(iter(found.values()))[0]
    texts = list(dict.fromkeys(attempt.text for attempt, _ in found.values()))
    text = f"{'; '.join(texts[:2])}{f'; and {len(texts) - 2} more' if len(texts) > 2 else ''}"
    words = f"{text} (in {len(found)} of the {len(parts)} parts that are joined)"
    changes = {p: change for attempt, _ in found.values() for p, change in attempt.changes.items()}
    after = problem.left(changes)
    return [(Attempt(first.key, words, changes), after)] if after * 1000 <= before else []


def _parts(problem: Problem) -> list[tuple[int, NDArray]]:
    """What is joined at the end, and what was observed in the place of each."""
    region, observed = problem.region, problem.observed
    node = region.node(region.sink)
    if node.op not in ("cat", "stack") or observed.shape != problem.right.shape or len(node.parents) > _MOST_PARTS:
        return []
    dim = int(node.args.get("dim", 0)) % observed.ndim
    if node.op == "stack":
        return [(p, np.take(observed, i, dim)) for i, p in enumerate(node.parents)]
    ends = np.cumsum([region.value(p).shape[dim] for p in node.parents])[:-1]
    return list(zip(node.parents, np.split(observed, ends, dim), strict=True))


def _alone(problem: Problem, place: int, observed: NDArray) -> Problem | None:
    """One part's own problem; None where its code can't be run."""
    try:
        region = Region(problem.region.graph, place, problem.region.cut)
        region.value(place)
        return replace(problem, region=region, observed=observed)
    except WRONG:
        return None
