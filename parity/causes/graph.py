"""The code between layers as a graph of operations, run again in NumPy, with changes made to some of its nodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes import fused_attention, written_softmax
from parity.causes.data_nodes import Counted, data_nodes
from parity.causes.graph_nodes import Changes, Get, Node, cost, renamed, run
from parity.causes.node_kinds import GIVEN, LAYER, MOVES, SOURCES, UNKNOWN
from parity.causes.numpy_table import CannotRun

_MOST_KEPT = 1000  # nodes of which all that follow from them are kept


class Graph:
    """Nodes, each behind those that it takes.

    Args:
        nodes: as a record holds them.
        load: gives the values of a node that the graph begins at.
    """

    def __init__(self, nodes: list[dict[str, Any]], load: Callable[[int, Node], NDArray]) -> None:
        self.nodes: list[Node] = []
        self.moved: list[int] = []  # by place in the record, the place here
        self.recorded: dict[int, int] = {}
        for place, each in enumerate(nodes):
            parts = fused_attention.taken_apart(each["op"], renamed(each["args"], self.moved), len(self.nodes))
            for part in parts:
                self.nodes.append(Node(*written_softmax.recognised(*part, self._described), each.get("line")))
            self.moved.append(len(self.nodes) - 1)
            self.recorded[len(self.nodes) - 1] = place
        self.loaded = load
        self.users: dict[int, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for parent in node.parents:
                self.users.setdefault(parent, []).append(place)

    def _described(self, place: int) -> tuple[str, Mapping[str, Any]]:
        return self.nodes[place].op, self.nodes[place].args

    def source(self, place: int) -> NDArray:
        """The values of a node that the graph begins at; raises CannotRun where they aren't known."""
        node = self.nodes[place]
        if node.op == UNKNOWN:
            raise CannotRun("a node's values weren't kept")
        array = self.loaded(self.recorded[place], node)
        return np.asarray(array, np.float64) if np.issubdtype(array.dtype, np.floating) else np.asarray(array)

    def before(self, sink: int, cut: Iterable[int] = ()) -> list[int]:
        """The nodes that a node follows from, in order, itself last; nothing is looked for behind those in `cut`."""
        stop, found, waiting = set(cut) - {sink}, {sink}, [sink]
        while waiting:
            place = waiting.pop()
            if place in stop:
                continue
            for parent in self.nodes[place].parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return sorted(found)


class Region:
    """What leads to one node of a graph, begun at values that are known.

    Args:
        graph: whole.
        sink: the node that it leads to.
        cut: values of nodes where it begins, however these came about.
        counted: how much of it counts as data; everything but parameters where the node would be none itself.
    """

    def __init__(
        self, graph: Graph, sink: int, cut: Mapping[int, Callable[[], NDArray]], counted: Counted = Counted.GIVEN
    ) -> None:
        self.graph, self.sink = graph, sink
        self._under: Changes = {}
        self._plain: Region | None = None
        self.cut = {place: load for place, load in cut.items() if place != sink}
        self.places = graph.before(sink, self.cut)
        self.inside = set(self.places)
        self.work = 0
        self._followers: dict[int, list[int]] = {}
        self._values: dict[int, Any] = {}
        data = data_nodes(self.places, self.node, self._begins, counted)
        self._data = data if data[sink] else data_nodes(self.places, self.node, self._begins, Counted.ALL)

    def _begins(self, place: int) -> bool:
        """Whether data begin here: at a cut, at a layer, at an input that isn't of whole numbers, as positions are."""
        op = self.graph.nodes[place].op
        if op == GIVEN:
            return bool(np.issubdtype(self.graph.source(place).dtype, np.floating))
        return op == LAYER or op not in SOURCES

    def node(self, place: int) -> Node:
        """A node; where the region begins one without arguments."""
        node = self.graph.nodes[place]
        return Node(LAYER) if place in self.cut and node.op not in SOURCES else node

    def of_data(self, place: int) -> bool:
        """Whether a node follows from what layers gave or the model got; not so constants, parameters, positions."""
        return self._data[place]

    def counting(self, counted: Counted) -> Region | None:
        """This region with more of it as data; None if nothing that computes becomes data by that."""
        data = data_nodes(self.places, self.node, self._begins, counted)
        if not any(data[p] and not self._data[p] and self.node(p).op not in MOVES for p in self.operations):
            return None
        other = copy.copy(self)
        other._data = data
        return other

    def users(self, place: int) -> list[int]:
        """The nodes of this region that take a node."""
        return [p for p in self.graph.users.get(place, ()) if p in self.inside and p not in self.cut]

    @property
    def operations(self) -> list[int]:
        """The nodes that compute something."""
        return [p for p in self.places if self.node(p).op not in SOURCES]

    def value(self, place: int) -> NDArray:
        """What a node gives in the reference."""
        if place not in self._values:
            for each in self.graph.before(place, [*self.cut, *self._values]):
                if each not in self._values:
                    self._values[each] = self._computed(each, self._values.__getitem__)
        return self._values[place]

    def shape(self, place: int) -> tuple[int, ...] | None:
        """The shape of what a node gives; None where that is several results."""
        values = self.value(place)
        return None if isinstance(values, (list, tuple)) else np.shape(values)

    def changed(self, changes: Changes, end: int | None = None) -> NDArray:
        """What a node gives if others give something else; raises CannotRun where that can't be.

        Args:
            changes: by place, what gives the new values from those of other nodes.
            end: the node that is asked for; the region's own if None.
        """
        end = self.sink if end is None else end
        made = self.made(changes, end)
        return made[end] if end in made else self.value(end)

    def anew(self, place: int, get: Get) -> Any:
        """What a node gives of itself when others give something else."""
        begins = place in self.cut or self.node(place).op in SOURCES
        return self.value(place) if begins or place in self._under else run(self.graph.nodes[place], get)

    def with_mistakes(self, changes: Changes) -> Region:
        """This region with these changes in it, to which others can be made."""
        other = copy.copy(self)
        other._under, other._plain = changes, self
        other._values = {**self._values, **self.made(changes)}
        other.work = 0
        return other

    def made(self, changes: Changes, end: int | None = None) -> dict[int, Any]:
        """The values that changes make others, by place, up to a node or the sink; raises CannotRun as `changed`."""
        end = self.sink if end is None else end
        made: dict[int, Any] = {}

        def get(place: int) -> Any:
            return made[place] if place in made else self.value(place)

        for place in self._reached(changes):
            if place > end:
                break
            if place in changes:
                made[place] = changes[place](get)
                self.work += cost(made[place])
            elif made and place in self._under:
                made[place] = self._again(place, made)
            elif place not in self.cut and any(parent in made for parent in self.graph.nodes[place].parents):
                made[place] = self._computed(place, get)
        return made

    def _reached(self, changes: Changes) -> list[int]:
        """The nodes that changes may make others, in order, themselves among them."""
        first = min(changes, default=self.sink)
        begun = [p for p in {*changes, *(p for p in self._under if p >= first)} if p in self.inside]
        return sorted(set().union(*(self._behind(p) for p in begun)))

    def _behind(self, place: int) -> list[int]:
        """A node and all that follow from it."""
        if place not in self._followers:
            if len(self._followers) == _MOST_KEPT:
                self._followers.clear()
            found, waiting = {place}, [place]
            while waiting:
                new = [p for p in self.users(waiting.pop()) if p not in found]
                found.update(new)
                waiting += new
            self._followers[place] = sorted(found)
        return self._followers[place]

    def _again(self, place: int, made: dict[int, Any]) -> Any:
        """A change that is in this region, made once more with other values before it."""

        def get(other: int) -> Any:
            if other in made:
                return made[other]
            return self.value(other) if other < place or self._plain is None else self._plain.value(other)

        return self._under[place](get)

    def _computed(self, place: int, get: Callable[[int], Any]) -> Any:
        node = self.graph.nodes[place]
        if place in self.cut:
            return self.cut[place]()
        if node.op in SOURCES:
            return self.graph.source(place)
        result = run(node, get)
        self.work += cost(result)
        return result
