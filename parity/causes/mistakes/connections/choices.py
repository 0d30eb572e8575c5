"""Mistakes in which of several are chosen, and how these count: experts behind a router, the best words or boxes.

`topk` gives the best values and their places. What stands behind it (a division by their sum, a softmax, a sum over
experts) is run again with another choice, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import ITEM, MOVES
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem
from parity.causes.numpy_operations.operations import OPERATIONS, softmax

_MOST_COUNTS = 16  # numbers of chosen ones that are tried


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each choice, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        start = region.node(place).argument("self")
        if region.node(place).op == "topk" and start is not None:
            yield from _others(region, place, start)
            yield from _weighed(region, place, start)


def _others(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """More of them, fewer, the smallest, or along another axis."""
    args, x = region.node(place).args, region.value(start)
    own, axis = int(args["k"]), int(args.get("dim", -1)) % x.ndim
    several = x.shape[axis]

    def chosen(**other: int | bool) -> Callable[[Get], Any]:
        return lambda get: OPERATIONS["topk"]({**args, "self": get(start), **other})

    for k in dict.fromkeys((1, several, *range(2, min(several, _MOST_COUNTS)))):
        if k != own:
            how = "all" if k == several else f"the best {k}"
            yield Attempt("topk_count", f"{how} of {several} are chosen, not the best {own}", {place: chosen(k=k)})
    if own < several:

        def later(get: Get) -> Any:
            more = OPERATIONS["topk"]({**args, "self": get(start), "k": own + 1})
            return [np.take(each, range(1, own + 1), axis) for each in more]

        text = f"the first of those that are chosen is left out, and one more taken: number 2 to {own + 1} of {several}"
        yield Attempt("topk_later", text, {place: later})
    largest = bool(args.get("largest", True))
    text = f"the {'smallest' if largest else 'largest'} {own} of {several} are chosen"
    yield Attempt("topk_smallest", text, {place: chosen(largest=not largest)})
    for other in (each for each in range(x.ndim) if each != axis and x.shape[each] >= own):
        text = f"the best {own} are chosen along axis {other} of {list(x.shape)}, not along {axis}"
        yield Attempt("topk_axis", text, {place: chosen(dim=other)})


def _weighed(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """What the chosen ones count: shares of all or of their own, made one in sum or not, or all alike."""
    args = region.node(place).args
    items = [p for p in region.users(place) if region.node(p).op == ITEM]
    values = [p for p in items if region.node(p).args["index"] == 0]
    axis = int(args.get("dim", -1))

    def made(change: Callable[[NDArray], NDArray]) -> dict[int, Callable[[Get], NDArray]]:
        return {p: lambda get, p=p: change(region.anew(p, get)) for p in values}

    if values:
        text = "what is chosen is divided by its sum, where PyTorch leaves it as it is"
        yield Attempt("topk_renormalised", text, made(lambda x: x / x.sum(axis, keepdims=True)))
        text = "a softmax is taken of what is chosen, where PyTorch leaves it as it is"
        yield Attempt("topk_softmax", text, made(lambda x: softmax({"self": x, "dim": axis})))
        yield Attempt("topk_alike", "all that is chosen counts alike", made(lambda x: np.full(x.shape, 1 / args["k"])))
        yield Attempt("topk_alike", "all that is chosen counts as one", made(np.ones_like))
    for user in _softmaxes(region, values):

        def of_all(get: Get) -> NDArray:
            shares = softmax({"self": get(start), "dim": axis})
            return np.take_along_axis(shares, get(place)[1], axis)

        text = "the softmax is taken of all, not of those that are chosen"
        yield Attempt("topk_softmax", text, {user: of_all})


def _softmaxes(region: Region, values: list[int]) -> Iterator[int]:
    """Softmaxes of what is chosen, moved by nothing that changes its shape."""
    waiting = list(values)
    while waiting:
        for user in region.users(waiting.pop()):
            if region.node(user).op in ("_softmax", "softmax"):
                yield user
            elif region.node(user).op in MOVES and region.value(user).shape == region.value(values[0]).shape:
                waiting.append(user)
