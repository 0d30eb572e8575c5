"""Another tensor that is about in the place of one that is joined: a skip from elsewhere, what comes a layer later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem

_JOIN = {"cat": np.concatenate, "stack": np.stack}
_MOST_PARTS = 16
_MOST_NODES = 32


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Every such tensor in the place of every part, the last concatenation first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        if node.op not in _JOIN or not region.of_data(place):
            continue
        for number, part in enumerate(node.parents[:_MOST_PARTS]):
            own = region.value(part)
            for name, other in _others(problem, place, part) if np.issubdtype(own.dtype, np.floating) else ():
                if not np.array_equal(other, own):
                    words = problem.words(part)
                    moved = f"what {problem.region.node(part).op.strip('_')} gives of it"
                    text = f"{name} is joined, in PyTorch {moved if name.endswith(f' gives of {words}') else words}"
                    yield Attempt("part_source", text, {place: _with(problem, place, number, other)})


def _others(problem: Problem, place: int, part: int) -> Iterator[tuple[str, NDArray]]:
    """Arrays that are about, and what this code gives before, of the same shape."""
    region = problem.region
    yield from problem.others(region.value(part))
    for other in [p for p in region.places if p < place and region.of_data(p)][-_MOST_NODES:]:
        values = region.value(other)
        if isinstance(values, np.ndarray) and values.shape == np.shape(region.value(part)):
            words = problem.words(other)
            if words == problem.words(part):  # which tell no moves of values
                words = f"what {region.node(other).op.strip('_')} gives of {words}"
            yield words, values


def _with(problem: Problem, place: int, number: int, other: NDArray) -> Callable[[Get], NDArray]:
    node = problem.region.node(place)
    parents, join, dim = node.parents, _JOIN[node.op], node.args.get("dim", 0)
    return lambda get: join([other if i == number else get(p) for i, p in enumerate(parents)], dim)
