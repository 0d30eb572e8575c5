"""Mistakes in where norms stand that are written out by hand: x / root(mean(x^2) + e), (x - mean) / deviation, shares.

Such a norm is found by its shape: a product or quotient of something with what is reduced of it, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem, value
from parity.causes.graph import Region
from parity.causes.node_kinds import MOVES, PARAMETER, SOURCES

_REDUCTIONS = frozenset({"mean", "sum", "var", "std", "amax", "linalg_vector_norm", "norm", "var_mean"})
_MOST_INSIDE = 14  # operations of one norm
_STEPS_AWAY = 8  # as far as a norm may be moved


class Norm(NamedTuple):
    """A norm: what it is of, and its result."""

    start: int
    end: int


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each norm left out, or applied earlier or later, the last one first."""
    region = problem.region
    for norm in reversed(found(region)):
        words = f"the norm of {problem.words(norm.start)}, which is written out,"
        if region.shape(norm.start) == region.shape(norm.end):
            yield Attempt("norm_missing", f"{words} is left out", {norm.end: lambda get, p=norm.start: get(p)})
        for other in _near(region, norm):
            text = "the norm that is written out is applied to"
            text = f"{text} {problem.words(other)}, not to {problem.words(norm.start)}"
            skipped = {norm.end: lambda get, p=norm.start: get(p)}
            for grouped in (True, False):
                change = {other: lambda get, n=norm, p=other, g=grouped: _applied(region, n, region.anew(p, get), g)}
                yield Attempt("norm_moved", text, {**skipped, **change})


def found(region: Region) -> list[Norm]:
    """Every norm that is written out in a region."""
    norms = []
    for place in region.operations:
        node = region.node(place)
        one, two = node.argument("self"), node.argument("other")
        if node.op not in ("mul", "div") or one is None or two is None or not region.of_data(place):
            continue
        for kept, scale in ((one, two), (two, one)) if node.op == "mul" else ((one, two),):
            start = _start(region, kept, scale)
            if start is not None:
                norms.append(Norm(start, _with_parameters(region, place)))
                break
    return norms


def _start(region: Region, kept: int, scale: int) -> int | None:
    """What a quotient's both parts are made of, if one is a reduction of the other and of nothing else."""
    candidates = [*region.node(kept).parents[:1], kept] if region.node(kept).op == "sub" else [kept]
    for start in candidates:
        if not region.of_data(start) or region.node(start).op == PARAMETER:
            continue
        inside = [p for each in {scale, kept} - {start} for p in region.graph.before(each, [*region.cut, start])]
        data = [p for p in dict.fromkeys(inside) if region.of_data(p) and p != start]
        sources = [p for p in data if p in region.cut or region.node(p).op in SOURCES]
        reduced = any(region.node(p).op in _REDUCTIONS for p in data)
        if start in region.graph.before(scale, region.cut) and reduced and not sources and len(data) <= _MOST_INSIDE:
            return start
    return None


def _with_parameters(region: Region, place: int) -> int:
    """The end of a norm with its scale and its bias, if it has some."""
    for op in ("mul", "add"):
        users = region.users(place)
        if len(users) == 1 and region.node(users[0]).op == op:
            others = [p for p in region.node(users[0]).parents if p != place]
            if others and not any(region.of_data(p) for p in others):
                place = users[0]
    return place


def _unmoved(region: Region, place: int) -> int:
    """Where the values of a node come from that only moves them."""
    while region.node(place).op in MOVES and region.node(place).parents and place not in region.cut:
        place = region.node(place).parents[0]
    return place


def _applied(region: Region, norm: Norm, x: NDArray, grouped: bool) -> NDArray:
    """The norm of other values, of an axis taken apart as it was in the reference or not."""
    shape = region.shape(norm.start)
    of = x.reshape(shape) if grouped else x
    if not grouped and x.shape == shape:
        raise ValueError("there is nothing to take apart")
    return np.asarray(region.changed({norm.start: value(of)}, norm.end)).reshape(x.shape)


def _near(region: Region, norm: Norm) -> Iterator[int]:
    """Nodes behind and before, of as many values, that the norm may be applied to instead."""
    size = np.size(region.value(norm.start))
    behind, waiting = [], [norm.end]
    for _ in range(_STEPS_AWAY):
        waiting = [user for p in waiting for user in region.users(p) if user not in behind]
        behind += dict.fromkeys(waiting)
    before, waiting = [], [norm.start]
    for _ in range(_STEPS_AWAY):
        waiting = [p for q in waiting if q not in region.cut for p in region.node(q).parents if p not in before]
        before += dict.fromkeys(waiting)
    inside = set(region.graph.before(norm.end, [*region.cut, norm.start]))
    inside |= {_unmoved(region, norm.start), _unmoved(region, norm.end)}  # the same place, its axes taken apart or not
    for other in dict.fromkeys((*behind, *before)):
        values = region.value(other) if region.of_data(other) and other not in inside else None
        if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating) and values.size == size:
            yield from [other] if region.node(other).op not in MOVES else []
