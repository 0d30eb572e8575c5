"""Mistakes in numbers that code adds, subtracts or limits by: turned round, elsewhere; smoothed labels.

A number that is left out of a sum is among `sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem

_OTHERS = (1.0, 0.5, 2.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)  # that are added in the place of one
_MOST_CLASSES = 1_000_000


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes with each such number, the last one first; then those in sums of two shares."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        operand = node.argument("self")
        if operand is None or not region.of_data(place):
            continue
        if node.op in ("add", "sub", "rsub"):
            yield from _added(problem, place, operand)
        elif node.op in ("clamp", "clamp_min") and (least := _least(region, place)) is not None:
            words = f"{least:g} is added to {problem.words(operand)}, which is {least:g} at least in PyTorch (epsilon)"
            yield Attempt("epsilon_placed", words, {place: lambda get, p=operand, c=least: get(p) + c})
    for place in reversed(region.operations):
        if region.node(place).op == "add" and region.of_data(place):
            yield from _smoothed(problem, place)


def _number(given: object) -> float | None:
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else None


def _added(problem: Problem, place: int, operand: int) -> Iterator[Attempt]:
    region = problem.region
    node, words = region.node(place), problem.words(operand)
    number = _number(node.args.get("other"))
    if number is None or not np.issubdtype(region.value(operand).dtype, np.floating):
        return
    if node.op == "rsub":
        text = f"{words} stands for {number:.6g} minus it"
        yield Attempt("difference_missing", text, {place: lambda get: get(operand)})
        text = f"{number:.6g} is subtracted from {words}, not the other way round"
        yield Attempt("operands_exchanged", text, {place: lambda get: -region.anew(place, get)})
        text = f"{number:.6g} is added to {words}, which is subtracted from it in PyTorch"
        yield Attempt("term_sign", text, {place: lambda get: number + get(operand)})
        return
    done = "added to" if node.op == "add" else "subtracted from"
    text = f"{number:.6g}, which is {done} {words}, has the other sign"
    yield Attempt("term_sign", text, {place: lambda get: 2 * get(operand) - region.anew(place, get)})
    sign = 1.0 if node.op == "add" else -1.0
    for other in (n for n in _OTHERS if n != number):
        text = f"{other:g} is {done} {words}, in PyTorch {number:.6g}"
        yield Attempt("number", text, {place: lambda get, n=other: get(operand) + sign * n})


def _least(region: Region, place: int) -> float | None:
    """The least that values may be, where it is an epsilon: positive and small."""
    node = region.node(place)
    least, inner = node.args.get("min"), node.argument("min")
    if inner is not None and np.size(region.value(inner)) == 1:
        least = float(np.asarray(region.value(inner)).reshape(()))
    number = _number(least)
    return number if number is not None and 0 < number <= 1e-2 and node.args.get("max") is None else None


def _smoothed(problem: Problem, place: int) -> Iterator[Attempt]:
    """Of a loss with smoothed labels, (1 - s) x + s / K y over K classes: how the share s is spread."""
    region = problem.region
    node = region.node(place)
    one, two = node.argument("self"), node.argument("other")
    if one is None or two is None or node.args.get("alpha") not in (None, 1):
        return
    for first, second in ((one, two), (two, one)):
        parts = [region.node(p) for p in (first, second)]
        a, b = (_number(part.args.get("other")) if part.op == "mul" else None for part in parts)
        x, y = (part.argument("self") for part in parts)
        if a is None or b is None or x is None or y is None or not 0 < b < 1 - a < 1:
            continue
        share, classes = 1 - a, round((1 - a) / b)
        if not 2 <= classes <= _MOST_CLASSES or abs(classes * b - share) > 1e-9:
            continue
        for text, own, others in _spread(share, classes):
            words = f"labels are smoothed in another way: of a share of {share:.6g}, of which each of {classes} classes"
            words += f" gets its part in PyTorch, {text}"
            yield Attempt("smoothing", words, {place: _weighed(x, y, own, others)})


def _spread(share: float, classes: int) -> Iterator[tuple[str, float, float]]:
    """Other ways of smoothing: in words, what the right class keeps beside its part, and each class's part."""
    others = share / (classes - 1)
    yield f"each class gets what {classes - 1} would", 1 - share, others
    yield f"the {classes - 1} other classes alone get something", 1 - share - others, others
    yield f"each class gets what {classes + 1} would", 1 - share, share / (classes + 1)
    yield "each class gets all", 1 - share, share
    yield "each class gets its part, and the right one keeps all of its own", 1.0, share / classes
    yield "no class gets anything, but the right one loses it", 1 - share, 0.0


def _weighed(x: int, y: int, own: float, others: float) -> Callable[[Get], NDArray]:
    return lambda get: own * get(x) + others * get(y)
