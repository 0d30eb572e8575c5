"""A number by which something is multiplied, or that is added to it, found from what came out: the last resort."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import FEWEST, Attempt, Problem, measured, value

_MOST_NODES = 48


def attempts(problem: Problem) -> Iterator[Attempt]:
    """A node that is some number of times what it should be, or has some number added; the likely numbers first."""
    region = problem.region
    places = [p for p in problem.region.places if isinstance(region.value(p), np.ndarray)]
    places = [p for p in places if np.issubdtype(region.value(p).dtype, np.floating) and region.value(p).size > 0]
    places = [p for p in places if region.node(p).op not in MOVES or p == region.sink][-_MOST_NODES:]
    for place in reversed(places):
        values, words = region.value(place), problem.words(place)

        def scaled(c: float, place: int = place, values: NDArray = values) -> Changes:
            return {place: value(c * values)}

        def moved(c: float, place: int = place, values: NDArray = values) -> Changes:
            return {place: value(values + c)}

        if (factor := measured(problem, scaled, 1.0, 1.0)) is not None:
            yield Attempt("scaled", f"{words} is {_number(factor, values)} times PyTorch's", scaled(factor), True)
        if (number := measured(problem, moved, 0.0, 0.0)) is not None:
            yield Attempt("number_added", f"{number:.6g} is added to {words}", moved(number), True)
    if problem.right.size < FEWEST:  # no number can be found from so few; those that are likely can be tried
        yield from _counted(problem)


def _counted(problem: Problem) -> Iterator[Attempt]:
    """What is handed on is a sum, not a mean, over as many as some axis has; or a mean, not a sum."""
    region, sink = problem.region, problem.region.sink
    arrays = [each for p in region.places if isinstance(each := region.value(p), np.ndarray)]
    sizes = {n for each in arrays for n in each.shape if n > 1}
    words = problem.words(sink)
    for n in sorted(sizes):
        text = f"{words} is {n} times PyTorch's, as the sum over {n} is of their mean"
        yield Attempt("scaled", text, {sink: value(problem.right * n)})
        text = f"{words} is a {n}th of PyTorch's, as the mean over {n} is of their sum"
        yield Attempt("scaled", text, {sink: value(problem.right / n)})


def _number(factor: float, values: NDArray) -> str:
    """A factor, and what it is if it is a root of the width."""
    width = values.shape[-1] if values.ndim else 1
    known = {
        math.sqrt(width): f"the root of the width, {width},",
        1 / math.sqrt(width): f"1 / the root of the width, {width},",
        math.sqrt(0.5): "1 / sqrt(2)",
        math.sqrt(2): "sqrt(2)",
    }
    return next((text for each, text in known.items() if abs(each - factor) < 1e-9 * each), f"{factor:.6g}")
