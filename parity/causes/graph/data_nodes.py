"""Which nodes of a region are data: mistakes are made in what becomes of data, not in the code's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from parity.causes.graph.node_kinds import MOVES, PARAMETER, SOURCES
from parity.causes.graph.nodes import Node


class Counted(Enum):
    """How much counts as data.

    Attributes:
        GIVEN: what follows from what layers gave or the model got.
        LEARNED: also what is computed from parameters, such as learned queries.
        ALL: also what is made of constants, such as tables of positions: everything but parameters themselves.
    """

    GIVEN = "given"
    LEARNED = "learned"
    ALL = "all"


def data_nodes(
    places: Iterable[int], node: Callable[[int], Node], begins: Callable[[int], bool], counted: Counted
) -> dict[int, bool]:
    """Whether each node is data.

    Args:
        places: of nodes, each behind those that it takes.
        node: the node at a place; where a region begins one that takes no others.
        begins: whether data begin at a node that takes no others.
        counted: how much counts.
    """
    data: dict[int, bool] = {}
    learned: set[int] = set()
    for place in places:
        each = node(place)
        if counted is Counted.ALL:
            data[place] = each.op != PARAMETER
            continue
        data[place] = begins(place) if each.op in SOURCES else any(data[p] for p in each.parents)
        if each.op == PARAMETER or learned.intersection(each.parents):
            learned.add(place)
            computed = each.op not in SOURCES and each.op not in MOVES
            data[place] = data[place] or (counted is Counted.LEARNED and computed)
    return data
