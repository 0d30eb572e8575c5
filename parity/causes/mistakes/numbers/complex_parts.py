"""Mistakes with complex numbers: the imaginary part taken for the real one, of products that are written out, too.

Of (a + b i) (c + d i) the real part is a c - b d, and the imaginary one a d + b c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.mistakes.attempts import Attempt, Problem

_PARTS = {"real": np.real, "imag": np.imag, "abs": np.abs}
_NAMES = {"real": "the real part", "imag": "the imaginary part", "abs": "the absolute value"}


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The other part of every complex number, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("self")
        if node.op in _PARTS and start is not None and np.iscomplexobj(region.value(start)):
            for other in (name for name in _PARTS if name != node.op):
                text = f"{_NAMES[other]} of {problem.words(start)} is taken, not {_NAMES[node.op]}"
                change = {place: lambda get, start=start, part=_PARTS[other]: part(get(start))}
                yield Attempt("complex_part", text, change)
        if node.op in ("sub", "add") and node.args.get("alpha") in (None, 1):
            yield from _written(problem, place)


def _written(problem: Problem, place: int) -> Iterator[Attempt]:
    """Of a c - b d and a d + b c one in the place of the other, whichever factors belong together."""
    region = problem.region
    first, second = (_factors(region, region.node(place).argument(name)) for name in ("self", "other"))
    if first is None or second is None:
        return
    (a, c), (one, two) = first, second
    real = region.node(place).op == "sub"
    names = ("imaginary", "real") if real else ("real", "imaginary")
    for b, d in ((one, two), (two, one)):
        shapes = [np.shape(region.value(p)) for p in (a, b, c, d)]
        if len({a, b, c, d}) < 4 or shapes[0] != shapes[1] or shapes[2] != shapes[3]:
            continue
        parts = " and ".join(f"{problem.words(p)} + i {problem.words(q)}" for p, q in ((a, b), (c, d)))
        text = f"the {names[0]} part of the product of {parts} is taken, not the {names[1]} one"
        if real:
            change = {place: lambda get, b=b, d=d: get(a) * get(d) + get(b) * get(c)}
        else:  # a c + b d, where c and d were exchanged
            change = {place: lambda get, b=b, d=d: get(a) * get(d) - get(b) * get(c)}
        yield Attempt("complex_part", text, change)


def _factors(region: Region, place: int | None) -> tuple[int, int] | None:
    """What a product is made of; None if a node isn't a product of two others."""
    if place is None or place in region.cut or region.node(place).op != "mul":
        return None
    one, two = region.node(place).argument("self"), region.node(place).argument("other")
    return None if one is None or two is None else (one, two)
