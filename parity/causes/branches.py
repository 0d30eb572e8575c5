"""Mistakes in what follows what: residual branches in another order or on another input, a norm in another place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from parity.causes.attempts import Attempt, Problem, value
from parity.causes.functions import CURVED, WORDS
from parity.causes.graph import Region
from parity.causes.graph_nodes import Changes, Get, run
from parity.causes.node_kinds import ITEM, MOVES

_LISTS = ("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit")
_LISTS += ("_native_batch_norm_legit_no_training", "cudnn_batch_norm")
_NORMS = ("layer_norm", "batch_norm", *_LISTS)
_STEPS_AWAY = 10  # as far as a norm or a function may be moved
_TITLES = {"layer_norm": "the norm", "batch_norm": "the norm", **dict.fromkeys(_LISTS, "the norm")}


class Branch(NamedTuple):
    """A residual connection.

    Attributes:
        start: the node that it begins at.
        end: what the branch gives.
        total: the sum of both.
    """

    start: int
    end: int
    total: int


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in the order of what is computed."""
    found = branches(problem.region)
    for one in found:
        for two in found:
            if two.start == one.total:
                yield from _in_a_row(problem, one, two)
        for two in _beside(problem.region, one):
            yield from _side_by_side(problem, one, two)
    yield from _moved(problem)


def branches(region: Region) -> list[Branch]:
    """Every sum of a node and of something that follows from it."""
    found = []
    for place in region.operations:
        node = region.node(place)
        one, two = node.argument("self"), node.argument("other")
        if node.op != "add" or one is None or two is None or node.args.get("alpha") not in (None, 1):
            continue
        for start, end in ((one, two), (two, one)):
            start = _unmoved(region, start)
            if start != end and region.of_data(start) and start in region.graph.before(end, region.cut):
                found.append(Branch(start, end, place))
    return found


def _unmoved(region: Region, place: int) -> int:
    """Where the values of a node that is a view come from."""
    while region.node(place).op in ("alias", "clone", "detach", "contiguous") and region.node(place).parents:
        place = region.node(place).parents[0]
    return place


def _beside(region: Region, one: Branch) -> Iterator[Branch]:
    """Branches that begin where another one does, and are added to its sum."""
    for total in region.users(one.total):
        node = region.node(total)
        ends = [p for p in (node.argument("self"), node.argument("other")) if p is not None and p != one.total]
        if node.op == "add" and len(ends) == 1 and node.args.get("alpha") in (None, 1):
            behind = region.graph.before(ends[0], region.cut)
            if one.start in behind and one.total not in behind and ends[0] != one.start:
                yield Branch(one.start, ends[0], total)


def _of(region: Region, branch: Branch, x: np.ndarray) -> np.ndarray:
    """What a branch gives of another input."""
    return region.changed({branch.start: value(x)}, branch.end)


def _in_a_row(problem: Problem, one: Branch, two: Branch) -> Iterator[Attempt]:
    region = problem.region
    shapes = {region.shape(p) for p in (one.start, one.end, two.end)}
    if len(shapes) != 1:
        return
    names = problem.words(one.end), problem.words(two.end)

    def exchanged(get: Get) -> np.ndarray:
        first = get(one.start) + _of(region, two, get(one.start))
        return first + _of(region, one, first)

    yield Attempt("branches_exchanged", f"{names[1]} is added before {names[0]}", {two.total: exchanged})

    def parallel(get: Get) -> np.ndarray:
        return get(one.total) + _of(region, two, get(one.start))

    text = f"{names[1]} is made of what {names[0]} is made of, not of the sum with it: the branches are parallel"
    yield Attempt("branches_parallel", text, {two.total: parallel})


def _side_by_side(problem: Problem, one: Branch, two: Branch) -> Iterator[Attempt]:
    region = problem.region
    names = problem.words(one.end), problem.words(two.end)

    def in_a_row(get: Get) -> np.ndarray:
        return get(one.total) + _of(region, two, get(one.total))

    text = f"{names[1]} is made of the sum with {names[0]}: the branches aren't parallel"
    yield Attempt("branches_serial", text, {two.total: in_a_row})


def _moved(problem: Problem) -> Iterator[Attempt]:
    """A norm or a function of one value applied earlier or later."""
    region = problem.region
    steps = [p for p in region.operations if region.of_data(p) and _step(region, p) is not None]
    for place in reversed(steps):
        found = _step(region, place)
        if found is None:
            continue
        inner, start = found
        words = _TITLES.get(region.node(inner).op, WORDS.get(region.node(inner).op, region.node(inner).op))
        if region.node(inner).op in _NORMS:
            words = f"{words} {problem.words(place).removeprefix('the output of ')}"
        for other in _near(region, place, start, _alike(region, inner, start)):
            text = f"{words} is applied to {problem.words(other)}, not to {problem.words(start)}"
            yield Attempt("function_moved", text, _applied_to(region, place, inner, start, other))
            users = [user for user in region.users(other) if user != place]
            for user in users if len(users) > 1 else ():
                where = f"{text}, where {region.node(user).op.strip('_')} takes it"
                yield Attempt("function_moved", where, _applied_for(region, place, inner, start, other, user))


def _step(region: Region, place: int) -> tuple[int, int] | None:
    """Of a node that is a norm or a function: the operation, and what it takes."""
    node = region.node(place)
    inner = place
    if node.op == ITEM and node.args.get("index") == 0 and node.parents:
        inner = node.parents[0]
        if region.node(inner).op not in _LISTS:
            return None
    elif node.op in _LISTS or (node.op not in CURVED and node.op not in _NORMS):
        return None
    of = region.node(inner)
    start = of.argument("input") if of.argument("input") is not None else of.argument("self")
    return None if start is None else (inner, start)


def _alike(region: Region, inner: int, start: int) -> tuple[int, ...]:
    """The last axes that values must have for a norm to be applied to them: those that it is taken along, or all."""
    node, shape = region.node(inner), np.shape(region.value(start))
    if node.op in CURVED:
        return ()
    return shape[-len(node.args["normalized_shape"]) :] if "layer_norm" in node.op else shape


def _near(region: Region, place: int, start: int, alike: tuple[int, ...]) -> Iterator[int]:
    """Nodes behind and before, of these last axes, that a function may be applied to instead."""
    behind, waiting = [], [place]
    for _ in range(_STEPS_AWAY):
        waiting = [user for p in waiting for user in region.users(p) if user not in behind]
        behind += dict.fromkeys(waiting)
    before, waiting = [], [start]
    for _ in range(_STEPS_AWAY):
        waiting = [p for q in waiting if q not in region.cut for p in region.node(q).parents if p not in before]
        before += dict.fromkeys(waiting)
    for other in (*behind, *before):
        values = region.value(other) if region.of_data(other) else None
        if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
            continue
        if values.shape[values.ndim - len(alike) :] == alike:
            yield from [other] if region.node(other).op not in MOVES or region.node(other).op == ITEM else []


def _applied_to(region: Region, place: int, inner: int, start: int, other: int) -> Changes:
    node = region.node(inner)

    def applied(get: Get) -> np.ndarray:
        whole = region.anew(other, get)
        made = run(node, lambda p: whole if p == start else get(p))
        return made[0] if isinstance(made, list) else made

    return {place: lambda get: get(start), other: applied}


def _applied_for(region: Region, place: int, inner: int, start: int, other: int, user: int) -> Changes:
    """The same for one of those alone that take the values."""
    node, taking = region.node(inner), region.node(user)

    def taken(get: Get) -> np.ndarray:
        made = run(node, lambda p: get(other) if p == start else get(p))
        made = made[0] if isinstance(made, list) else made
        return run(taking, lambda p: made if p == other else get(p))

    return {place: lambda get: get(start), user: taken}
