"""Mistakes in how often a loop is gone through: what it gives a turn earlier, or a turn later.

A loop is told by its line, which has run several times, and by what each time takes of the time before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.graph.node_kinds import SOURCES
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem

_TERMS = ("add", "sub", "mul", "div")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """A turn less and a turn more, of each line."""
    region = problem.region
    lines: dict[tuple, list[int]] = {}
    for place in region.operations:
        node, values = region.node(place), region.value(place)
        if (
            node.op not in SOURCES
            and node.line is not None
            and isinstance(values, np.ndarray)
            and region.of_data(place)
        ):
            lines.setdefault((node.line, node.op, values.shape), []).append(place)
    for places in lines.values():
        last, before = places[-1], places[-2] if len(places) > 1 else places[-1]
        if last == before or before not in region.graph.before(last, region.cut):
            continue
        line = region.node(last).line, region.node(last).op
        turns = sum((each.line, each.op) == line for each in region.graph.nodes)
        words = f"of the {turns} turns of the loop that gives {problem.words(last)}"
        if region.node(last).op not in _TERMS or before not in region.node(last).parents:  # else a term is left out
            yield Attempt("turn_missing", f"{words} the last one is left out", {last: lambda get, p=before: get(p)})

        def further(get: Get, last: int = last, before: int = before) -> np.ndarray:
            return region.changed({before: lambda _: get(last)}, last)

        yield Attempt("turn_added", f"{words} there is one more", {last: further})
