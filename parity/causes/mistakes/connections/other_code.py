"""The code before another layer in the place of this one's: another mode of one function, say, as of two directions.

What the other code begins with is put in the place of what it begins with itself, in order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import GIVEN, LAYER, PARAMETER
from parity.causes.mistakes.attempts import WRONG, Attempt, Problem, value

_ALWAYS = (LAYER, GIVEN, PARAMETER)


def attempts(problem: Problem) -> Iterator[Attempt]:
    """What the code before each other layer gives of the values with which this code begins."""
    region, own = problem.region, _starts(problem.region)
    for words, other in problem.code() if region.operations else ():
        theirs = _starts(other)
        if problem.spent:
            return
        if not other.operations or len(own) != len(theirs) or _form(other) == _form(region):
            continue
        try:
            if all(_alike(region, one, other, two) for one, two in zip(own, theirs, strict=True)):
                begun = {two: value(region.value(one)) for one, two in zip(own, theirs, strict=True)}
                made = np.asarray(other.changed(begun))
                problem.region.work += made.size * len(other.places)
            else:
                continue
        except WRONG:
            continue
        if made.shape == problem.right.shape and not np.array_equal(made, problem.right):
            yield Attempt(
                "other_code", f"it is made as PyTorch makes {words}, of its own values", {region.sink: value(made)}
            )


def _starts(region: Region) -> list[int]:
    """Where code begins: with data, parameters, constants, counts of places; single numbers left out."""
    places = [p for p in region.places if not region.node(p).parents]
    return [p for p in places if region.node(p).op in _ALWAYS or np.size(region.value(p)) > 1]


def _alike(region: Region, one: int, other: Region, two: int) -> bool:
    """Whether a value may stand in the place of another: of the same kind, with as many axes."""
    if (region.node(one).op == PARAMETER) != (other.node(two).op == PARAMETER):
        return False
    x, y = np.asarray(region.value(one)), np.asarray(other.value(two))
    return x.ndim == y.ndim and x.dtype.kind == y.dtype.kind


def _form(region: Region) -> list[tuple]:
    """What code computes, whatever it begins with."""
    return [(region.node(p).op, _plain(region.node(p).args)) for p in region.operations]


def _plain(args: object) -> str:
    """Arguments without the places of nodes."""
    if isinstance(args, dict):
        return "node" if "node" in args else str({name: _plain(each) for name, each in args.items()})
    return str([_plain(each) for each in args]) if isinstance(args, (list, tuple)) else str(args)
