"""Mistakes in what is chosen by a comparison or a triangle: off by one, turned round, inverted, left out.

Attention's masks, whose softmax is known, are among `masks`; these are all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, Node, run

_WORDS = {"lt": "less than", "le": "at most", "gt": "more than", "ge": "at least"}
_EQUAL_TOO = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
_JOINED = {"logical_or": "or", "bitwise_or": "or", "__or__": "or"}
_JOINED |= {"logical_and": "and", "bitwise_and": "and", "__and__": "and", "logical_xor": "either"}
_TURNED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each of them, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        op = region.node(place).op
        if op in _WORDS:
            yield from _compared(region, place)
        elif op in ("tril", "triu"):
            yield from _triangles(problem, place)
        elif op in ("where", "masked_fill"):
            yield from _chosen(problem, place)
        elif op in _JOINED:
            yield from _alone(problem, place)


def _changed(node: Node, op: str, **other: Any) -> Callable[[Get], Any]:
    """Another operation of the same arguments, or with others in the places of some."""
    return lambda get: run(Node(op, node.args), get, **other)


def _compared(region: Region, place: int) -> Iterator[Attempt]:
    node = region.node(place)
    own = f"in PyTorch {_WORDS[node.op]}"
    for key, other in (("comparison_equal", _EQUAL_TOO[node.op]), ("comparison_turned", _TURNED[node.op])):
        text = f"chosen is what is {_WORDS[other]} something, {own}"
        yield Attempt(key, text, {place: _changed(node, other)})
    start = node.argument("self")
    if start is not None and np.issubdtype(np.asarray(region.value(start)).dtype, np.integer):
        for by in (1, -1):
            text = f"the limit of a comparison is {'lower' if by > 0 else 'higher'} by 1 (off by one)"
            moved = lambda get, by=by: run(node, lambda p: get(p) + by if p == start else get(p))  # noqa: E731
            yield Attempt("comparison_off_by_one", text, {place: moved})


def _triangles(problem: Problem, place: int) -> Iterator[Attempt]:
    node = problem.region.node(place)
    own, start = int(node.args.get("diagonal") or 0), node.argument("self")
    for by in (1, -1):
        text = f"the triangle is off by one: {node.op} begins at diagonal {own + by}, not {own}"
        yield Attempt("mask_off_by_one", text, {place: _changed(node, node.op, diagonal=own + by)})
    other = "triu" if node.op == "tril" else "tril"
    text = f"the triangle is transposed: {other} stands for {node.op}"
    yield Attempt("mask_transposed", text, {place: _changed(node, other, diagonal=-own)})
    if start is not None:
        text = f"{node.op} is left out: there is no mask of a triangle"
        yield Attempt("mask_missing", text, {place: lambda get: get(start)})


def _alone(problem: Problem, place: int) -> Iterator[Attempt]:
    """One of two conditions by itself, such as a mask to which nothing of the one before is added; "and" for "or"."""
    region, node = problem.region, problem.region.node(place)
    one, two = node.argument("self"), node.argument("other")
    if one is None or two is None or np.asarray(region.value(place)).dtype != bool:
        return
    word, shape = _JOINED[node.op], np.shape(region.value(place))
    for own, other in ((one, two), (two, one)):
        text = f"the condition {problem.words(own)} alone stands for it {word} {problem.words(other)}"
        yield Attempt("condition_missing", text, {place: lambda get, own=own: np.broadcast_to(get(own), shape)})
    if word != "either":
        function, other_word = (np.logical_and, "and") if word == "or" else (np.logical_or, "or")
        text = f'two conditions are joined by "{other_word}", not by "{word}"'
        yield Attempt("condition_joined", text, {place: lambda get: function(get(one), get(two))})


def _chosen(problem: Problem, place: int) -> Iterator[Attempt]:
    region = problem.region
    node = region.node(place)
    condition = node.argument("condition" if node.op == "where" else "mask")
    start = node.argument("self")
    if condition is None or start is None or np.asarray(region.value(condition)).dtype != bool:
        return

    def inverted(get: Get) -> NDArray:
        return run(node, lambda p: ~get(p) if p == condition else get(p))

    words = problem.words(start)
    yield Attempt(
        "mask_inverted", f"what is chosen of {words} is inverted: the condition is negated", {place: inverted}
    )
    shape = np.shape(region.value(place))
    missing = {place: lambda get: np.broadcast_to(get(start), shape)}
    yield Attempt("mask_missing", f"nothing is masked in {words}: it goes on as it is", missing)
