"""Another one of several: of the parts that an array is taken apart into, or of the places of an axis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.graph.node_kinds import ITEM
from parity.causes.graph.nodes import Node, run
from parity.causes.mistakes.attempts import Attempt, Problem

_MOST = 16  # others that are tried in each place


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Every other part of the same shape in the place of one, the last such place first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        if node.op not in (ITEM, "select") or not region.of_data(place):
            continue
        start, index = node.argument("self"), int(node.args["index"])
        if start is None:
            continue
        whole, own = region.value(start), np.shape(region.value(place))
        if node.op == ITEM:
            shapes = [np.shape(each) for each in whole] if isinstance(whole, (list, tuple)) else []
            others = [i for i, shape in enumerate(shapes) if shape == own]
            count, what = len(shapes), f"the parts of {problem.words(start)}"
        else:
            axis = int(node.args["dim"]) % whole.ndim
            count, what = whole.shape[axis], f"axis {axis} of {problem.words(start)}"
            others, index = list(range(count)), index % count
        for other in [i for i in others if i != index][:_MOST]:
            text = f"number {other} of {what} is taken, in PyTorch number {index} of {count}"
            changed = Node(node.op, {**node.args, "index": other})
            yield Attempt("other_item", text, {place: lambda get, changed=changed: run(changed, get)})
