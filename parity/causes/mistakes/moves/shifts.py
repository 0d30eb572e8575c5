"""Mistakes in values that are moved by some places along an axis, with zeros in place of what is missing.

As tokens before a causal layer are, however that is written: padded and cut, padded by less than nothing, joined
with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem

_SHIFTING = ("constant_pad_nd", "slice", "narrow", "cat")
_STEPS = 4  # operations from the values to the moved ones
_FARTHEST = 4  # places


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each such move, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        found = _found(region, place) if region.node(place).op in _SHIFTING and region.of_data(place) else None
        if found is None:
            continue
        start, axis, by = found
        words = f"{problem.words(start)} is moved by {by} along axis {axis} in PyTorch"
        for key, text, other in _others(region.value(place).ndim, axis, by):
            yield Attempt(key, f"{words}, here {text}", {place: _made(other, start)})


def _made(other: Callable[[NDArray], NDArray], start: int) -> Callable[[Get], NDArray]:
    return lambda get: other(get(start))


def _found(region: Region, place: int) -> tuple[int, int, int] | None:
    """What is moved, along which axis, by how many places; None if nothing is."""
    y = region.value(place)
    if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.floating) or not y.any():
        return None
    start = place
    for _ in range(_STEPS):
        behind = [p for p in region.node(start).parents if region.of_data(p) and np.any(region.value(p))]
        if len(behind) != 1 or (region.node(start).op not in _SHIFTING and region.node(start).op not in MOVES):
            return None
        start = behind[0]
        x = region.value(start)
        if isinstance(x, np.ndarray) and x.shape == y.shape:
            ways = ((a, by) for a in range(x.ndim) for n in range(1, _FARTHEST + 1) for by in (n, -n))
            way = next(((a, by) for a, by in ways if np.array_equal(_moved(x, a, by), y)), None)
            return None if way is None else (start, *way)
    return None


def _moved(x: NDArray, axis: int, by: int) -> NDArray:
    """Values some places further on along an axis, or back; zeros come in."""
    n = x.shape[axis]
    made = np.zeros_like(x)
    if abs(by) < n:
        to, of = [slice(None)] * x.ndim, [slice(None)] * x.ndim
        to[axis], of[axis] = slice(max(by, 0), n + min(by, 0)), slice(max(-by, 0), n - max(by, 0))
        made[tuple(to)] = x[tuple(of)]
    return made


def _others(rank: int, axis: int, by: int) -> Iterator[tuple[str, str, Callable[[NDArray], NDArray]]]:
    step = 1 if by > 0 else -1
    yield "shift_sign", f"by {-by}: the other way", lambda x: _moved(x, axis, -by)
    yield "shift_missing", "not at all", lambda x: x
    yield "shift_number", f"by {by + step}", lambda x: _moved(x, axis, by + step)
    if abs(by) > 1:
        yield "shift_number", f"by {by - step}", lambda x: _moved(x, axis, by - step)
    yield "shift_rolled", "round: what leaves at one end comes in at the other", lambda x: np.roll(x, by, axis)
    yield "shift_rolled", "round, and the other way", lambda x: np.roll(x, -by, axis)
    for other in range(1, rank):
        if other != axis:
            yield "shift_axis", f"along axis {other}", lambda x, other=other: _moved(x, other, by)
