"""Terms of sums that are added earlier or later, as a bias behind the function that PyTorch applies to it as well."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Region
from parity.causes.graph_nodes import Changes, Get, run
from parity.causes.node_kinds import MOVES
from parity.causes.other_parameters import PRODUCTS
from parity.causes.sums import operands, signs_of

_STEPS = 6  # operations that a term may be moved over


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each term of each sum, the last sum first."""
    region = problem.region
    for place in reversed(region.operations):
        terms = operands(problem, place) if region.node(place).op in ("add", "sub") else []
        if len(terms) != 2 or not region.of_data(place):
            continue
        signs = signs_of(region.node(place))
        for (_, kept), (name, term) in (terms, terms[::-1]):
            if region.shape(kept) != region.shape(place):
                continue
            for other, where in _near(region, place, kept):
                text = (
                    f"{problem.words(term)} is added {where}, to {problem.words(other)}, not to {problem.words(kept)}"
                )
                yield Attempt("term_moved", text, _moved(region, place, kept, (term, signs[name]), other))
    yield from _biases(problem)


def _biases(problem: Problem) -> Iterator[Attempt]:
    """The bias of each product, added behind what PyTorch applies to the sum, such as the function that follows."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        name = "self" if node.op == "addmm" else "bias"
        bias = node.argument(name) if node.op in PRODUCTS else None
        if bias is None or not region.of_data(place):
            continue
        nothing = np.zeros(()) if name == "self" else None
        axis, result = -1 if node.op in ("linear", "addmm") else 1, region.value(place)
        for other, _ in _behind(region, place):
            if region.shape(other) == result.shape:
                shape = [1] * result.ndim
                shape[axis] = -1
                text = f"{problem.words(bias)} is added to {problem.words(other)}, not before it"
                yield Attempt(
                    "term_moved",
                    text,
                    {
                        place: lambda get, n=node, k={name: nothing}: run(n, get, **k),
                        other: lambda get, p=other, b=bias, s=shape: region.anew(p, get) + get(b).reshape(s),
                    },
                )


def _behind(region: Region, place: int) -> Iterator[tuple[int, str]]:
    """What follows from a node along the only way."""
    for _ in range(_STEPS):
        users = region.users(place)
        if len(users) != 1:
            return
        place = users[0]
        if region.node(place).op not in MOVES:
            yield place, "later"


def _near(region: Region, place: int, kept: int) -> Iterator[tuple[int, str]]:
    """Where else it may be added: behind the sum, along the only way, and before what it is added to."""
    yield from _behind(region, place)
    at = kept
    for _ in range(_STEPS):
        behind = [p for p in region.node(at).parents if region.of_data(p)] if at not in region.cut else []
        if len(behind) != 1:
            return
        at = behind[0]
        if region.node(at).op not in MOVES:
            yield at, "earlier"


def _moved(region: Region, place: int, kept: int, term: tuple[int, float], other: int) -> Changes:
    def added(get: Get) -> np.ndarray:
        return region.anew(other, get) + term[1] * get(term[0])

    return {place: lambda get: get(kept), other: added}
