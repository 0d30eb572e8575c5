"""Mistakes in powers and in factors that are roots of a width: another base, another exponent, another width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Changes, run
from parity.causes.mistakes.attempts import Attempt, Problem, measured

_BASES = {"e": math.e, "2": 2.0, "10": 10.0}
_LARGE = 50.0  # a base of positions' wave lengths, not of a decay
_EXPONENTS = (2.0, 0.5, -0.5, 3.0, -1.0, 4.0)
_WIDEST = 1 << 20


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each, the last one first."""
    region = problem.region
    widths = _widths(region)
    for place in reversed(region.operations):
        node = region.node(place)
        if node.op == "pow":
            yield from _powers(problem, place)
        elif node.op in ("mul", "div"):
            yield from _roots(problem, place, widths)


def _powers(problem: Problem, place: int) -> Iterator[Attempt]:
    node = problem.region.node(place)
    exponent, base = node.args.get("exponent"), node.args.get("self")
    if isinstance(exponent, (int, float)):
        for other in (e for e in _EXPONENTS if e != exponent):
            change = {place: lambda get, other=other: run(node, get, exponent=other)}
            yield Attempt("exponent", f"the exponent is {other:g}, not {exponent:g}", change)
    if isinstance(base, (int, float)) and base > 0:

        def of(other: float) -> Changes:
            return {place: lambda get: run(node, get, self=other)}

        bases = _BASES if base < _LARGE else {f"{base * by:g}": base * by for by in (0.1, 10.0, 0.01, 100.0)}
        for name, other in bases.items():
            if other != base:
                yield Attempt("power_base", f"powers are of {name}, not of {base:g} (another base)", of(other))
        if (found := measured(problem, of, float(base), float(base))) is not None:
            yield Attempt("power_base", f"powers are of {found:.6g}, not of {base:g} (another base)", of(found))


def _widths(region: Region) -> list[int]:
    """How wide things are here: the sizes of axes, and of two that may be joined, such as heads and their features."""
    shapes = {np.shape(region.value(p)) for p in region.places if isinstance(region.value(p), np.ndarray)}
    pairs = {one * two for shape in shapes for one, two in itertools.pairwise(shape[-3:])}
    apart = {shape[-1] * shape[-3] for shape in shapes if len(shape) > 2}
    return sorted({n for shape in shapes for n in shape} | pairs | apart)


def _roots(problem: Problem, place: int, widths: list[int]) -> Iterator[Attempt]:
    """A factor that is the root of a width: that of another one."""
    node = problem.region.node(place)
    number = node.args.get("other")
    if not isinstance(number, float) or number <= 0:
        return
    size = max(number, 1 / number) ** 2
    own = round(size)
    if not 2 <= own <= _WIDEST or abs(size - own) > 1e-9 * own:
        return
    words = problem.words(node.parents[0])
    for other in (n for n in widths if n not in (own, 1)):
        factor = math.sqrt(other) if number > 1 else 1 / math.sqrt(other)
        text = f"{words} is scaled by the root of {other}, not of {own}, as if that were the width"
        change = {place: lambda get, factor=factor: run(node, get, other=factor)}
        yield Attempt("scale_root", text, change)
