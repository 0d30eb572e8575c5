"""Other places of an array that is indexed, found by their values where these go on as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.causes.cause import distinct
from parity.causes.graph.graph import Region
from parity.causes.mistakes.attempts import FEWEST, WRONG, Attempt, Problem, value

_MOST_COMPARED = 10_000_000  # values, in looking for the places
_SHOWN = 6  # places that are told


class _Indexed(NamedTuple):
    """An array of which places were taken: axes before theirs, how many places their axes have, which were taken."""

    start: int
    lead: int
    sizes: tuple[int, ...]
    places: list[int]


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The places that JAX took of each array, where it took others."""
    region = problem.region
    for place in reversed(region.operations):
        indexed = _indexed(region, place) if region.of_data(place) else None
        if indexed is None:
            continue
        got = _arrived(problem, place)
        if got is None:
            continue
        lead, x, y = indexed.lead, region.value(indexed.start), region.value(place)
        before, count = math.prod(x.shape[:lead]), math.prod(indexed.sizes)
        x = x.reshape(before, count, -1)
        if x.size * math.prod(y.shape) > _MOST_COMPARED * x.shape[2]:
            continue
        own = indexed.places
        theirs = _places(x, got.reshape(before, -1, x.shape[2]), own, problem.tolerance)
        if theirs is not None and own != theirs:
            alike = sorted(own) == sorted(theirs)
            what = "the same places are taken in another order, of " if alike else "other places are taken, of "
            text = f"{what}{problem.words(indexed.start)}: {_told(theirs, indexed.sizes)}; in PyTorch "
            made = x[:, theirs].reshape(y.shape)
            key = "index_order" if alike else "index_places"
            yield Attempt(key, text + _told(own, indexed.sizes), {place: value(made)})


def _indexed(region: Region, place: int) -> _Indexed | None:
    """What a node takes places of; None if it isn't such a one."""
    node = region.node(place)
    start = node.argument("self")
    if start is None or not isinstance(region.value(start), np.ndarray):
        return None
    shape = region.value(start).shape
    if node.op == "index_select":
        axis = int(node.args["dim"]) % len(shape)
        return _Indexed(start, axis, shape[axis : axis + 1], [int(i) for i in np.ravel(region.value(node.parents[1]))])
    if node.op != "index":
        return None
    axes = [i for i, each in enumerate(node.args["indices"]) if each is not None]
    arrays = [region.value(node.args["indices"][i]["node"]) for i in axes]
    plain = all(each.ndim == 1 and np.issubdtype(each.dtype, np.integer) for each in arrays)
    if not axes or not plain or axes != [*range(axes[0], axes[-1] + 1)]:
        return None
    sizes = shape[axes[0] : axes[-1] + 1]
    taken = np.ravel_multi_index(np.broadcast_arrays(*arrays), sizes, mode="wrap")
    return _Indexed(start, axes[0], sizes, [int(i) for i in taken])


def _arrived(problem: Problem, place: int) -> NDArray | None:
    """What JAX had in a node's place, where its values go on as they are and nowhere else; None if they don't."""
    region, y = problem.region, problem.region.value(place)
    if not np.issubdtype(y.dtype, np.floating) or distinct(problem.observed) < FEWEST:
        return None
    tags = np.arange(y.size, dtype=np.float64).reshape(y.shape)
    try:
        one, two = (region.changed({place: value(tags + more)}) for more in (0.5, y.size + 0.5))
    except WRONG:
        return None
    if one.shape != problem.observed.shape:
        return None
    moved = one != two
    if moved.sum() != y.size or not np.array_equal(np.sort(one[moved]), tags.ravel() + 0.5):
        return None
    if not np.array_equal(two[moved] - one[moved], np.full(y.size, float(y.size))):
        return None
    got = np.empty(y.size)
    got[(one[moved] - 0.5).astype(int)] = problem.observed[moved]
    return got.reshape(y.shape)


def _places(x: NDArray, y: NDArray, own: list[int], tolerance: float) -> list[int] | None:
    """For each of y[:, k] a place p with x[:, p] alike, if need be one of the reference's; None where there is none."""
    found = []
    for k in range(y.shape[1]):
        near = np.abs(x - y[:, k : k + 1]).max(axis=(0, 2)) <= tolerance
        if not near.any():
            return None
        found.append(next((p for p in (own[k], *own) if near[p]), int(near.argmax())))
    return found


def _told(places: list[int], sizes: tuple[int, ...]) -> str:
    each = [tuple(int(i) for i in np.unravel_index(p, sizes)) for p in places[:_SHOWN]]
    words = ", ".join(str(e[0] if len(e) == 1 else e) for e in each)
    return f"{words}, ..." if len(places) > _SHOWN else words
