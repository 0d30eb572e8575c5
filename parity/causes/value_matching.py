"""Which of the values of PyTorch's code a function computes, too; and where the first ones are that it doesn't."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.causes.attempts import WRONG
from parity.causes.graph import Region
from parity.causes.jax_values import JaxValues, comparable
from parity.causes.node_kinds import MOVES, SOURCES

_MOVED = 0.01  # by which part of themselves values are changed, to see what depends on them


def matched(region: Region, values: JaxValues, plain: Region, known: dict[int, int | None]) -> dict[int, int | None]:
    """Of each node whose values can be compared, its place among the function's; None where it has none.

    Args:
        region: of which nodes are asked for.
        values: the function's.
        plain: the same code without mistakes.
        known: answers for that, added to.
    """
    found: dict[int, int | None] = {}
    for place in region.places:
        node = region.node(place)
        array = region.value(place)
        if node.op in SOURCES or node.op in MOVES or not comparable(array):
            continue
        unchanged = array is plain.value(place)
        if not unchanged or place not in known:
            hit = values.find(array)
            if hit is None and (once := _once(array)) is not None and comparable(once):
                hit = values.find(once)
            found[place] = None if hit is None else hit[0]
        else:
            found[place] = known[place]
        if unchanged:
            known[place] = found[place]
    return found


def _once(array: np.ndarray) -> np.ndarray | None:
    """One copy of values that are the same all along some axes, as of a time for every example; None without such."""
    axes = [a for a in range(array.ndim) if array.shape[a] > 1 and (array == array.take([0], a)).all()]
    for axis in axes:
        array = array.take([0], axis)
    return array if axes else None


def moved(region: Region, values: JaxValues) -> frozenset[int]:
    """Places of the function's values that PyTorch's code has by moving others, parts of them among these."""
    found = (values.find(array) for p in region.places if isinstance(array := _moved_values(region, p), np.ndarray))
    return frozenset(hit[0] for hit in found if hit is not None)


def _moved_values(region: Region, place: int) -> Any:
    node = region.node(place)
    return region.value(place) if node.op in SOURCES or node.op in MOVES else None


def wrong(region: Region, found: dict[int, int | None]) -> list[int]:
    """The nodes whose values the function doesn't have, nor anything that depends on them, in order."""
    return [place for place in found if not _right(region, place, found)]


def _right(region: Region, place: int, found: dict[int, int | None]) -> bool:
    """Whether the function has a node's values, or others that change with them."""
    if found[place] is not None:
        return True
    values = region.value(place)
    made = {place: values * (1 + _MOVED * np.random.default_rng(0).standard_normal(values.shape))}

    def get(other: int) -> Any:
        return made[other] if other in made else region.value(other)

    for other in region.places:
        if other > place and any(p in made for p in region.graph.nodes[other].parents):
            try:
                changed = region.anew(other, get)
            except WRONG:
                return False
            if changed is region.value(other):
                continue
            if found.get(other) is None:
                made[other] = changed
            elif not np.array_equal(changed, region.value(other)):
                return True
    return False
