"""Factors that stand in another place of a sum: for all of it, where PyTorch has one for a part, or for another part.

As a layer's scale does that multiplies the residual connection, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import WRONG, Attempt, Problem, value
from parity.causes.graph import Region
from parity.causes.node_kinds import MOVES
from parity.causes.sums import signs_of

_MOST_TERMS = 4


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each factor of a part of a sum, and of a whole one, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        if not region.of_data(place):
            continue
        if region.node(place).op in ("add", "sub"):
            yield from _of_a_part(problem, place)
            yield from _turned_shares(problem, place)
            yield from _exchanged(problem, place)
        elif region.node(place).op in ("mul", "div"):
            yield from _of_the_sum(problem, place)


def _behind(region: Region, place: int, ops: tuple[str, ...]) -> int | None:
    """The operation of these that a node is of, or moves the result of; None if it isn't one."""
    while region.node(place).op in MOVES:
        start = region.node(place).argument("self")
        if start is None:
            return None
        place = start
    return place if region.node(place).op in ops else None


def _factors(problem: Problem, place: int) -> Iterator[tuple[int, Any, str]]:
    """Of a product or quotient: what is multiplied, by what, and that in words."""
    region = problem.region
    node = region.node(place)
    one, two, number = node.argument("self"), node.argument("other"), node.args.get("other")
    if one is None:
        return
    if two is None:
        if isinstance(number, (int, float)) and number not in (0, 1):
            yield one, number if node.op == "mul" else 1 / number, f"{number:.6g}"
        return
    for kept, factor in ((one, two), (two, one)) if node.op == "mul" else ((one, two),):
        values = np.asarray(region.value(factor))
        if np.issubdtype(values.dtype, np.floating):
            yield kept, values if node.op == "mul" else 1 / values, problem.words(factor)


def _of_a_part(problem: Problem, place: int) -> Iterator[Attempt]:
    region = problem.region
    signs = signs_of(region.node(place))
    parts = {name: p for name in signs if (p := region.node(place).argument(name)) is not None}
    for name, part in parts.items():
        product = _behind(region, part, ("mul", "div"))
        if product is None:
            continue
        rest = [(signs[other], p) for other, p in parts.items() if other != name]
        for kept, factor, words in _factors(problem, product):
            try:
                spread = np.broadcast_to(factor, np.shape(region.value(product)))
                scale = region.changed({product: value(spread)}, part)
                plain = region.changed({product: value(np.broadcast_to(region.value(kept), spread.shape))}, part)
            except WRONG:
                continue
            others = sum(sign * region.value(p) for sign, p in rest)
            done = "multiplies" if region.node(product).op == "mul" else "divides"
            if rest:
                whole = region.value(place) + (scale - 1) * others
                text = f"{words} {done} the whole sum with {problem.words(rest[0][1])}, not {problem.words(kept)} alone"
                yield Attempt("factor_moved", text, {place: value(whole)})
                yield from _of_further_terms(problem, place, scale, f"{words} {done}", problem.words(kept))
                text = f"{words} {done} {problem.words(rest[0][1])}, not {problem.words(kept)}"
                yield Attempt("factor_moved", text, {place: value(signs[name] * plain + scale * others)})


def _of_further_terms(problem: Problem, place: int, scale: Any, does: str, kept: str) -> Iterator[Attempt]:
    """A factor of one term of a longer sum, s x + y + z, that multiplies another one beside it, too."""
    region = problem.region
    for _ in range(_MOST_TERMS):
        users = region.users(place)
        if len(users) != 1 or region.node(users[0]).op not in ("add", "sub"):
            return
        before, place = place, users[0]
        signs = signs_of(region.node(place))
        for name, sign in signs.items():
            other = region.node(place).argument(name)
            if other is not None and other != before:
                made = region.value(place) + sign * (scale - 1) * region.value(other)
                text = f"{does} the sum with {problem.words(other)}, not {kept} alone"
                if np.shape(made) == region.shape(place):
                    yield Attempt("factor_moved", text, {place: value(made)})


def _exchanged(problem: Problem, place: int) -> Iterator[Attempt]:
    """Of a x + b y the factors a and b, as of a mixture, m x + (1 - m) y, taken the other way round."""
    region = problem.region
    node = region.node(place)
    signs = list(signs_of(node).values())
    products = [node.argument(name) for name in ("self", "other")]
    if any(p is None or region.node(p).op != "mul" for p in products):
        return
    pairs = [[region.node(p).argument(name) for name in ("self", "other")] for p in products if p is not None]
    for one, two in itertools.product((0, 1), repeat=2):
        x, a, y, b = pairs[0][one], pairs[0][1 - one], pairs[1][two], pairs[1][1 - two]
        if x is None or a is None or y is None or b is None or x == y or a == b:
            continue
        if _size(region, x) < _size(region, a) or _size(region, y) < _size(region, b):
            continue
        change = {place: lambda get, x=x, a=a, y=y, b=b: signs[0] * get(b) * get(x) + signs[1] * get(a) * get(y)}
        words = (problem.words(p) for p in (a, b, x, y))
        text = "{} and {}, by which {} and {} are multiplied, are exchanged".format(*words)
        yield Attempt("factors_exchanged", text, change)


def _turned_shares(problem: Problem, place: int) -> Iterator[Attempt]:
    """Of a + s (b - a), something between two, the share taken of the other one: b + s (a - b)."""
    region = problem.region
    one, two = region.node(place).argument("self"), region.node(place).argument("other")
    for a, product in ((one, two), (two, one)) if region.node(place).op == "add" else ():
        if a is None or product is None or region.node(product).op != "mul":
            continue
        for share in region.node(product).parents or ():
            node = region.node(share)
            b = node.argument("self")
            if node.op == "sub" and node.argument("other") == a and b is not None:
                text = f"the share is taken of {problem.words(a)}, not of {problem.words(b)}: the two are exchanged"
                whole = region.value(a) + region.value(b) - region.value(place)
                yield Attempt("share_exchanged", text, {place: value(whole)})


def _size(region: Region, place: int) -> int:
    return int(np.size(region.value(place)))


def _of_the_sum(problem: Problem, place: int) -> Iterator[Attempt]:
    region = problem.region
    result = np.shape(region.value(place))
    for kept, factor, words in _factors(problem, place):
        total = _behind(region, kept, ("add", "sub"))
        if total is None or total in region.cut:
            continue
        node = region.node(total)
        signs = signs_of(node)
        parts = [(sign, p) for name, sign in signs.items() if (p := node.argument(name)) is not None]
        if len(parts) < 2 or region.shape(kept) != result:
            continue
        for (sign, one), (_, two) in (parts, parts[::-1]):
            try:
                spread = np.broadcast_to(sign * region.value(one), np.shape(region.value(total)))
                alone = region.changed({total: value(spread)}, kept)
            except WRONG:
                continue
            made: NDArray = alone * factor + (region.value(kept) - alone)
            done = "multiplies" if region.node(place).op == "mul" else "divides"
            text = f"{words} {done} {problem.words(one)} alone, not its sum with {problem.words(two)}"
            yield Attempt("factor_moved", text, {place: value(made)})
