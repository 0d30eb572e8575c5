"""Nodes of the code between layers in words, for people who know their model and its layers."""

from __future__ import annotations

from typing import NamedTuple

from parity.causes.graph.graph import Graph
from parity.causes.graph.node_kinds import ASSIGN, CONSTANT, GIVEN, LAYER, MOVES, PARAMETER

_FILLED = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zeros", "ones"})


class Words(NamedTuple):
    """What is known of a graph's nodes.

    Attributes:
        graph: they are of.
        names: of layers, by the key of their records.
        met: layers that get a node, by its place.
        given: what the inputs are called.
    """

    graph: Graph
    names: dict[str, str]
    met: dict[int, str]
    given: str

    def of(self, place: int, depth: int = 0) -> str:
        """A node in words; `depth` is how many others its name is in."""
        node = self.graph.nodes[place]
        if node.op == LAYER:
            return f"the output of {self.names.get(node.args['key'], node.args['key'])}"
        if node.op == GIVEN:
            several = any(each.op == GIVEN and each.args["index"] > 0 for each in self.graph.nodes)
            return f"{self.given} {node.args['index']}" if several else self.given
        if node.op in _FILLED:
            return "zeros" if node.op.startswith("zeros") else "ones" if node.op.startswith("ones") else "a constant"
        if node.op == PARAMETER:
            return str(node.args.get("name", "a parameter"))
        if place in self.met:
            return f"the input of {self.met[place]}"
        if node.op == CONSTANT or not node.parents:
            return "a constant"
        if node.op in MOVES:
            return self.of(node.parents[0], depth)
        if node.op == ASSIGN:
            return "an array that is filled part by part"
        weight = next((p for p in node.parents if self._parameter(p).endswith(".weight")), None)
        if weight is not None and len(node.parents) > 1:  # of itself it may be no more than squared
            return f"the output of {self._parameter(weight).removesuffix('.weight')}"
        if depth > 1:
            return f"what {node.op.strip('_')} gives"
        return f"{node.op.strip('_')}({', '.join(self.of(p, depth + 1) for p in node.parents[:3])})"

    def _parameter(self, place: int) -> str:
        """The name of a parameter; empty for all else."""
        node = self.graph.nodes[place]
        while node.op in MOVES and node.parents:
            node = self.graph.nodes[node.parents[0]]
        return str(node.args.get("name", "")) if node.op == PARAMETER else ""
