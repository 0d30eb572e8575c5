"""What is about when the code before a layer is looked into: what other layers gave and got, sums, other code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import CONSTANT, LAYER, PARAMETER
from parity.causes.mistakes.attempts import WRONG

_NEAR = 16  # layers before and behind, whose inputs and outputs may stand in for something
_LONGEST = 200  # nodes of other code


class Met(Protocol):
    """What a layer got."""

    @property
    def load(self) -> Callable[[], NDArray]:
        """Gives the reference's value."""
        ...


class Around(Protocol):
    """A model's code; see `parity.causes.between.between_graph.Code`."""

    graph: Graph
    names: dict[str, str]
    values: Callable[[str, str], NDArray]
    sinks: Callable[[str], list[int]]

    @property
    def met(self) -> Mapping[int, Met]:
        """What layers got, by place."""
        ...

    def words(self, place: int) -> str:
        """A node in words."""
        ...


def arrays(around: Around, near: str, region: Region) -> list[tuple[str, Callable[[], NDArray]]]:
    """What layers near by gave and got, and those at which the code begins, however far away they are; sums.

    Args:
        around: the model's code.
        near: key of the record of the layer that gets what the code gives.
        region: the code.
    """
    graph, keys = around.graph, sorted(around.names)
    at = keys.index(near) if near in keys else len(keys)
    starts = [region.node(p).args.get("key") for p in region.places if region.node(p).op == LAYER]
    chosen = sorted(keys[max(at - _NEAR, 0) : at + _NEAR], key=lambda key: abs(keys.index(key) - at))
    chosen += [key for key in dict.fromkeys(starts) if key in around.names and key not in chosen][:_NEAR]
    sums = [p for p in range(region.sink) if graph.nodes[p].op == "add" and p not in region.inside]
    found = [(around.words(p), _kept(lambda p=p: _sum(p, region))) for p in sums[-_NEAR:]]
    for key in (key for key in chosen if key != near):
        for array, text in (("output.0", "the output of"), ("input.0", "the input of")):
            load = _kept(lambda key=key, array=array: around.values(key, array))
            found.append((f"{text} {around.names[key]}", load))
    return found


def code(around: Around, region: Region) -> Callable[[], Iterator[tuple[str, Region]]]:
    """Gives the code before other layers, the nearest first, each with what it gives in words."""

    def each() -> Iterator[tuple[str, Region]]:
        graph = around.graph
        places = {graph.moved[sink]: path for key, path in around.names.items() for sink in around.sinks(key)}
        known = {p: met.load for p, met in around.met.items() if graph.nodes[p].op not in (PARAMETER, CONSTANT)}
        near = sorted((p for p in places if p != region.sink), key=lambda p: abs(p - region.sink))
        for place in near[: 2 * _NEAR]:
            other = Region(graph, place, known)
            if len(other.places) <= _LONGEST:
                yield f"the input of {places[place]}", other

    return each


def _sum(place: int, region: Region) -> NDArray:
    """What a node gives, begun where a region begins; nothing where that can't be run."""
    try:
        return np.asarray(Region(region.graph, place, region.cut).value(place))
    except WRONG:
        return np.zeros(0)


def _kept(load: Callable[[], NDArray]) -> Callable[[], NDArray]:
    values: list[NDArray] = []

    def get() -> NDArray:
        if not values:
            values.append(load())
        return values[0]

    return get
