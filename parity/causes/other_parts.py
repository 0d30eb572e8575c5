"""Another tensor that is about in the place of one that is joined: a skip from elsewhere, what comes a layer later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph_nodes import Get

_JOIN = {"cat": np.concatenate, "stack": np.stack}
_MOST_PARTS = 16


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Every such tensor in the place of every part, the last concatenation first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        if node.op not in _JOIN or not region.of_data(place):
            continue
        for number, part in enumerate(node.parents[:_MOST_PARTS]):
            own = region.value(part)
            for name, other in problem.others(own) if np.issubdtype(own.dtype, np.floating) else ():
                if not np.array_equal(other, own):
                    text = f"{name} is joined, in PyTorch {problem.words(part)}"
                    yield Attempt("part_source", text, {place: _with(problem, place, number, other)})


def _with(problem: Problem, place: int, number: int, other: NDArray) -> Callable[[Get], NDArray]:
    node = problem.region.node(place)
    parents, join, dim = node.parents, _JOIN[node.op], node.args.get("dim", 0)
    return lambda get: join([other if i == number else get(p) for i, p in enumerate(parents)], dim)
