"""Functions of one value that are written out, as x sigmoid(1.702 x) or x relu6(x + 3) / 6: another one in their place.

One is found by its shape: operations on single values, all made of one tensor and of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.functions import CURVED
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get
from parity.kinds.activation import CURVES

_ARITHMETIC = frozenset({"add", "sub", "rsub", "mul", "div", "neg", "erf", "exp", "sqrt", "log", "log1p", "expm1"})
_OF_VALUES = _ARITHMETIC | CURVED | {"clamp_max", "reciprocal", "alias"}
_MORE = {"exp": ("exp", np.exp), "square": ("the square", np.square)}  # that stand for it, too
_FEWEST, _MOST = 2, 14  # operations of one function


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Usual functions in the place of each that is written out, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        start = _start(region, place)
        if start is None:
            continue
        others = {key: (curve.words, curve.function) for key, curve in CURVES.items()}
        others = {"identity": ("nothing", others["identity"][1]), **others, **_MORE}
        for key, (words, function) in others.items():
            text = f"{words} stands for the function of {problem.words(start)} that is written out"
            yield Attempt(f"activation_{key}", text, {place: _applied(function, start)})


def _applied(function: Callable[[NDArray], NDArray], start: int) -> Callable[[Get], NDArray]:
    return lambda get: function(get(start))


def _start(region: Region, place: int) -> int | None:
    """What a node is a function of, value by value; None if it isn't one of several operations on one tensor."""
    inside, begun, waiting = set[int](), set[int](), [place]
    while waiting:
        node = waiting.pop()
        if not region.of_data(node):
            if np.size(region.value(node)) != 1:
                return None
        elif node in region.cut or region.node(node).op not in _OF_VALUES:
            begun.add(node)
        elif node not in inside:
            inside.add(node)
            waiting += region.node(node).parents
    if len(begun) != 1 or not _FEWEST <= len(inside) <= _MOST or not _curved(region, inside):
        return None
    start = begun.pop()
    return start if region.shape(start) == region.shape(place) else None


def _curved(region: Region, inside: set[int]) -> bool:
    """Whether one of the operations isn't linear: products of numbers alone are no functions that others stand for."""
    return any(region.node(p).op in CURVED | {"erf", "log", "log1p", "expm1"} for p in inside)
