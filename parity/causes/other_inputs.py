"""Mistakes in what an operation is given: another tensor that is about, as values that are made of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, run
from parity.causes.node_kinds import MOVES

# Operations, each with its argument that is data.
_OF = {"linear": "input", "convolution": "input", "_convolution": "input", "layer_norm": "input", "addmm": "mat1"}
_OF |= {"matmul": "self", "native_layer_norm": "input", "native_group_norm": "input", "native_batch_norm": "input"}
_OF |= {f"{kind}_pool{n}d": "self" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)}
_OF |= {f"max_pool{n}d_with_indices": "self" for n in (1, 2, 3)}
_OF |= {f"upsample_{kind}{n}d": "self" for kind in ("nearest", "bilinear", "linear") for n in (1, 2, 3)}
_FACTORS = ("mul", "div", "matmul", "bmm", "einsum")
_STEPS = 3  # operations from what is taken to what may be taken instead
_MOST = 8  # others for each operation
_MOST_MOVES = 64  # of the values of those


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Another node near by, of as many values, in the place of each operation's input, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument(_OF.get(node.op, ""))
        if start is None or not region.of_data(start):
            continue
        for other in _near(region, place, start):
            text = f"{problem.words(other)} is taken by {problem.words(place)}, in PyTorch {problem.words(start)}"
            yield Attempt("other_input", text, {place: _given(region, place, start, other)})
        for words, values in problem.others(region.value(start)):
            text = f"{words} is taken by {problem.words(place)}, in PyTorch {problem.words(start)}"
            yield Attempt("other_input", text, {place: _with(region, place, start, values)})
    for place in reversed(region.operations):
        if region.node(place).op == "gather" and region.of_data(place):
            yield from _other_gathered(problem, place)
        if region.node(place).op in _FACTORS and region.of_data(place):
            yield from _other_factors(problem, place)


def _other_gathered(problem: Problem, place: int) -> Iterator[Attempt]:
    """Places of something else that is about, as of what a layer gave, not of what it got."""
    region, node = problem.region, problem.region.node(place)
    start = node.argument("self")
    if start is None or not isinstance(region.value(start), np.ndarray):
        return
    others = [(problem.words(p), region.value(p)) for p in _near(region, place, start)]
    for words, other in [*others, *problem.others(region.value(start))]:
        text = f"places of {words} are taken by {node.op}, in PyTorch of {problem.words(start)}"
        yield Attempt("other_input", text, {place: _with(region, place, start, other)})


def _other_factors(problem: Problem, place: int) -> Iterator[Attempt]:
    """Another node near by in the place of what is multiplied or divided, its axes moved as those were."""
    region = problem.region
    for taken in dict.fromkeys(region.node(place).parents):
        start = _unmoved(region, taken)
        if not region.of_data(start) or not isinstance(region.value(start), np.ndarray):
            continue
        others = [(problem.words(p), region.value(p)) for p in _near(region, place, start)]
        others += problem.others(region.value(start))
        for words, other in others:
            moved = region.changed({start: lambda _, x=other: x}, taken)
            text = f"{words} is taken by {region.node(place).op}, in PyTorch {problem.words(start)}"
            yield Attempt("other_input", text, {place: _with(region, place, taken, moved)})


def _unmoved(region: Region, place: int) -> int:
    """Where the values of a node come from that only moves them."""
    while region.node(place).op in MOVES and region.node(place).parents and place not in region.cut:
        place = region.node(place).parents[0]
    return place


def _with(region: Region, place: int, own: int, values: Any) -> Callable[[Get], Any]:
    node = region.node(place)
    return lambda get: run(node, lambda p: values if p == own else get(p))


def _given(region: Region, place: int, start: int, other: int) -> Callable[[Get], Any]:
    node = region.node(place)
    return lambda get: run(node, lambda p: get(other) if p == start else get(p))


def _near(region: Region, place: int, start: int) -> list[int]:
    """What was computed a few operations before or beside an input, nearest first; moves of values don't count."""
    shape, found, waiting = region.shape(start), [], _moved_too(region, [start])
    for _ in range(_STEPS):
        behind = _moved_too(region, [p for q in waiting if q not in region.cut for p in region.node(q).parents])
        beside = [user for q in (*waiting, *behind) for user in region.users(q)]
        waiting = [p for p in dict.fromkeys((*behind, *beside)) if p < place and region.of_data(p)]
        found += [p for p in waiting if p not in found and p != start]
    same = [p for p in found if region.shape(p) == shape and region.node(p).op not in MOVES]
    return same[:_MOST]


def _moved_too(region: Region, places: list[int]) -> list[int]:
    """Nodes, with those that only move their values or whose values they move."""
    found, waiting = dict.fromkeys(places), list(places)
    while waiting and len(found) < _MOST_MOVES:
        place = waiting.pop()
        new = [p for p in region.users(place) if region.node(p).op in MOVES]
        if region.node(place).op in MOVES and place not in region.cut:
            new += region.node(place).parents
        new = [p for p in new if p not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)
