"""Gradients that differ only where code between layers has a kink: what they are there is a matter of convention."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.causes.cause import Cause
from parity.causes.examined import ExaminedModel
from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import GIVEN, LAYER
from parity.causes.graph.nodes import Node
from parity.causes.mistakes.attempts import WRONG
from parity.causes.numpy_operations.table import CannotRun

_MOST_DIFFERENT = 512  # gradients of which it is looked up what they follow from
_AT_ZERO = {"abs", "relu", "relu6", "leaky_relu", "hardtanh", "sqrt", "sign"}


def explain(candidate: ExaminedModel, key: str, torch: NDArray, flax: NDArray, tolerance: float) -> list[Cause]:
    """The cause of two gradients of what a layer gave that differ only where a value behind it lies at a kink.

    Args:
        candidate: at ties.
        key: of the layer's forward record; `given` for the model's first input.
        torch: PyTorch's gradient; likewise flax, in PyTorch's layout.
        flax: see `torch`.
        tolerance: largest difference that counts as none.
    """
    natural = candidate.natural
    if natural is None or natural.code is None or torch.shape != flax.shape:
        return []
    apart = difference(torch, flax)
    different = np.argwhere(apart > tolerance)
    if not 0 < len(different) <= _MOST_DIFFERENT:
        return []
    graph = copy.copy(natural.code.graph)
    graph.loaded = _tied(candidate, natural.code.graph)
    starts = [p for p, node in enumerate(graph.nodes) if _is(node, key)]
    functions: set[str] = set()
    for index in map(tuple, different):
        if not (met := [each for start in starts for each in _kinks(graph, start, index)]):
            return []
        functions.update(met)
    first = tuple(int(i) for i in different[0])
    text = (
        f"wrong gradient: the sides differ only where what {' or '.join(sorted(functions))} gets lies exactly at its "
        f"kink ({len(different)} values), first at {list(first)}: Flax {float(flax[first])!r}, "
        f"PyTorch {float(torch[first])!r}"
    )
    rest = float(np.max(apart, initial=0.0, where=apart <= tolerance))
    return [Cause("gradient_kink", "between", text, float(apart.max()), rest)]


def _is(node: Node, key: str) -> bool:
    of_model = key == "given" and node.op == GIVEN and node.args["index"] == 0
    return of_model or (node.op == LAYER and node.args["key"] == key and node.args["index"] == 0)


def _tied(candidate: ExaminedModel, graph: Graph) -> Callable[[int, Node], NDArray]:
    """What layers handed on at ties; inputs and constants are those of the natural run."""

    def load(place: int, node: Node) -> NDArray:
        if node.op != LAYER:
            return graph.loaded(place, node)
        if node.args["index"] != 0 or not candidate.store.has(node.args["key"], "passed.0"):
            raise CannotRun("what a layer handed on at ties wasn't kept")
        return candidate.store.array(node.args["key"], "passed.0")

    return load


def _kinks(graph: Graph, start: int, index: tuple[int, ...]) -> list[str]:
    """The functions behind a node that get something at their kink which changes with one of the node's values."""
    found = []
    for place, node in enumerate(graph.nodes):
        operand = node.argument("self")
        if place <= start or operand is None or node.op not in {*_AT_ZERO, "clamp", "clamp_min", "maximum", "minimum"}:
            continue
        region = Region(graph, operand, {})
        if start not in region.inside:
            continue
        try:
            moved = np.array(region.value(start))
            moved[index] += 1.0
            changed = region.changed({start: lambda get, moved=moved: moved}) != region.value(operand)
            at_kink = _at_kink(graph, node, region.value(operand))
            if (changed & at_kink).any():
                found.append(node.op)
        except WRONG:
            continue
    return found


def _at_kink(graph: Graph, node: Node, x: NDArray) -> NDArray:
    """Where what a function gets lies at its kink."""
    if node.op in ("maximum", "minimum"):
        other = node.argument("other")
        return x == (node.args["other"] if other is None else Region(graph, other, {}).value(other))
    if node.op in ("clamp", "clamp_min", "hardtanh"):
        limits = (node.args.get(name) for name in ("min", "max", "min_val", "max_val"))
        return np.isin(x, [each for each in limits if isinstance(each, (int, float))])
    return x == 0
