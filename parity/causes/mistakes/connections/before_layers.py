"""Mistakes in what lies on which side of a layer: code that PyTorch runs behind it, as a scale and a shift.

A port that does so hands the layer what PyTorch makes of its result: the same code, begun at its input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import LAYER, MOVES
from parity.causes.mistakes.attempts import WRONG, Attempt, Problem, value

_MOST = 24  # operations behind a layer


def attempts(problem: Problem) -> Iterator[Attempt]:
    """What PyTorch computes behind the layer that gets this, before it; each operation there may be the last."""
    region = problem.region
    for start in outputs(region.graph, problem.layer):
        for end in behind(region.graph, start):
            made = Region(region.graph, end, {**region.cut, start: lambda: problem.right})
            if not any(start in made.graph.before(p, made.cut) for p in made.node(end).parents):
                continue
            try:
                result = np.asarray(made.value(end), np.float64)
            except WRONG:
                continue
            region.work += made.work
            if result.shape == problem.right.shape:
                text = f"what PyTorch computes behind the layer is computed before it, up to {problem.words(end)}"
                yield Attempt("before_layer", text, {region.sink: value(result)})


def outputs(graph: Graph, key: str) -> list[int]:
    """The nodes that a layer's call gives."""
    return [p for p, node in enumerate(graph.nodes) if key and node.op == LAYER and node.args.get("key") == key]


def behind(graph: Graph, start: int) -> list[int]:
    """What is computed of a node, moves of its values left out, nearest first."""
    found, waiting = [], [start]
    while waiting and len(found) < _MOST:
        waiting = [user for p in waiting for user in graph.users.get(p, ()) if user not in found]
        found += dict.fromkeys(waiting)
    return [p for p in found[:_MOST] if graph.nodes[p].op not in MOVES]
