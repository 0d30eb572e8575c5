"""Mistakes in products of complex numbers that are written in their parts: the other part is taken.

Of (a + ib)(c + id) the real part is ac - bd, and the imaginary one ad + bc. Whoever writes it with complex numbers
takes one of them at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Get, Region


class _Product(NamedTuple):
    """What a node multiplies."""

    one: int
    two: int


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The imaginary part for each real one, the last one first, and the real part for each imaginary one."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        one, two = (_product(region, node.argument(name)) for name in ("self", "other"))
        if node.op not in ("add", "sub") or node.args.get("alpha") not in (None, 1) or one is None or two is None:
            continue
        (a, c), (b, d) = one, two
        words = f"of what may be a complex product, {problem.words(place)}, the "
        if node.op == "sub":  # ac - bd; which of two factors belong together isn't known
            yield Attempt(
                "imaginary_part", words + "imaginary part is taken, not the real one", {place: _sum(a, d, b, c)}
            )
        else:  # ad + bc, if what stands last is c
            for one, two in (((a, d), (b, c)), ((b, c), (a, d))):
                change = {place: _sum(*one, *two, sign=-1.0)}
                yield Attempt("real_part", words + "real part is taken, not the imaginary one", change)


def _product(region: Region, place: int | None) -> _Product | None:
    node = None if place is None else region.node(place)
    if node is None or node.op != "mul":
        return None
    one, two = node.argument("self"), node.argument("other")
    return None if one is None or two is None else _Product(one, two)


def _sum(a: int, b: int, c: int, d: int, sign: float = 1.0) -> Callable[[Get], NDArray]:
    """The first product of two nodes, and the second one added or taken away."""
    return lambda get: get(a) * get(b) + sign * get(c) * get(d)
