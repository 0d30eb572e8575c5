"""Mistakes in how many there are: all places counted where PyTorch counts those that a mask keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.numpy_operations.table import axes_of


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Every sum of zeros and ones, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("self")
        mask = region.value(start) if start is not None and node.op == "sum" else None
        if not isinstance(mask, np.ndarray) or mask.size == 0 or not np.isin(mask, (0, 1)).all():
            continue
        axes = axes_of(node.args.get("dim"))
        shape = mask.shape if axes is None else [mask.shape[axis] for axis in axes]
        count, counted = int(np.prod(shape)), np.asarray(region.value(place))
        if (counted != count).any():
            text = f"all {count} places are counted, in PyTorch those that a mask keeps, {_told(counted)}"
            yield Attempt("count_of_all", text, {place: value(np.full_like(counted, count))})
            text = f"one is counted, in PyTorch the places that a mask keeps, {_told(counted)}"
            yield Attempt("count_missing", text, {place: value(np.ones_like(counted))})


def _told(counted: np.ndarray) -> str:
    few = sorted({int(each) for each in counted.ravel()})
    return " or ".join(map(str, few)) if len(few) < 4 else f"{few[0]} to {few[-1]}"
