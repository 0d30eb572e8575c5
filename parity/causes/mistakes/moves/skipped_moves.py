"""Mistakes in chains of moves, such as the shift of relative positions: left out, the first or the last values taken.

A chain pads, views, cuts and transposes values, and computes nothing of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem

_MOVING = MOVES | {"constant_pad_nd", "cat"}
_CUTTING = frozenset({"constant_pad_nd", "cat", "slice", "narrow"})
_MOST = 10  # moves of one chain


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each chain's values taken from before some of its moves, the last chain first."""
    region = problem.region
    for place in reversed(region.operations):
        users = region.users(place)
        if not _moves(region, place) or (users and all(_moves(region, user) for user in users)):
            continue  # not the end of a chain
        own = region.value(place)
        cuts = False
        for user, start in itertools.pairwise([place, *_before(region, place)]):
            cuts = cuts or region.node(user).op in _CUTTING
            x = region.value(start)
            if not cuts:  # only axes in another order, which is told better elsewhere
                continue
            if (
                not isinstance(x, np.ndarray)
                or x.ndim != own.ndim
                or any(a < b for a, b in zip(x.shape, own.shape, strict=True))
            ):
                continue
            for words, cut in (("the first", _first), ("the last", _last)):
                if x.shape == own.shape and cut is _last:
                    continue
                what = "handed on" if x.shape == own.shape else f"{words} of them taken"
                text = f"values aren't moved or shifted behind {problem.words(start)}: they are {what} as they are"
                yield Attempt("moves_missing", text, {place: _taken(cut, start, own.shape)})


def _moves(region: Region, place: int) -> bool:
    return place not in region.cut and region.node(place).op in _MOVING and region.of_data(place)


def _before(region: Region, place: int) -> Iterator[int]:
    for _ in range(_MOST):
        behind = [p for p in region.node(place).parents if region.of_data(p)]
        if len(behind) != 1 or not _moves(region, place):
            return
        place = behind[0]
        yield place


def _first(x: NDArray, shape: tuple[int, ...]) -> NDArray:
    return x[tuple(slice(0, n) for n in shape)]


def _last(x: NDArray, shape: tuple[int, ...]) -> NDArray:
    return x[tuple(slice(size - n, size) for size, n in zip(x.shape, shape, strict=True))]


def _taken(
    cut: Callable[[NDArray, tuple[int, ...]], NDArray], start: int, shape: tuple[int, ...]
) -> Callable[[Get], NDArray]:
    return lambda get: cut(get(start), shape)
