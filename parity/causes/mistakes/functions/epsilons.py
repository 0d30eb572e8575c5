"""Mistakes in the small numbers that norms written out by hand add: another one, under the root or outside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Get, Node, run
from parity.causes.mistakes.attempts import Attempt, Problem
from parity.causes.mistakes.functions.functions import EPSILONS

_LARGEST = 1e-2  # a larger number is none of these
_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5}
_LENGTHS = ("sqrt", "std", "linalg_vector_norm", "norm")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes with each such number, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        name = _named(node)
        operand = node.argument("self")
        if name is None or operand is None or not np.issubdtype(np.asarray(region.value(operand)).dtype, np.floating):
            continue
        own = float(node.args[name])
        for number in (e for e in EPSILONS if e != own):
            change = {place: lambda get, number=number, node=node, name=name: run(node, get, **{name: number})}
            yield Attempt("epsilon", f"epsilon is {number:g}, not {own:g}", change)
        if node.op == "add":
            yield from _elsewhere(region, place, operand, own)


def _named(node: Node) -> str | None:
    """The argument that is such a number; None if none is."""
    name = {"add": "other", "clamp_min": "min", "clamp": "min"}.get(node.op)
    if name is None or (node.op == "clamp" and node.args.get("max") is not None):
        return None
    number = node.args.get(name)
    small = isinstance(number, float) and 0 < number <= _LARGEST and node.args.get("alpha") in (None, 1)
    return name if small else None


def _power(node: Node) -> float | None:
    """The exponent of a node that is a root; None if it isn't one."""
    exponent: Any = node.args.get("exponent") if node.op == "pow" else _ROOTS.get(node.op)
    return float(exponent) if isinstance(exponent, float) and abs(exponent) == 0.5 else None


def _elsewhere(region: Region, place: int, operand: int, own: float) -> Iterator[Attempt]:
    for user in region.users(place):
        power = _power(region.node(user))
        if power is not None:
            text = f"epsilon, {own:g}, is added to the root, in PyTorch under it"
            yield Attempt("epsilon_placed", text, {user: _outside(operand, own, 2 * power)})
    before = region.node(operand)
    if before.op in _LENGTHS or _power(before) == 0.5:
        text = f"epsilon, {own:g}, is added under the root, in PyTorch to it"
        yield Attempt("epsilon_placed", text, {place: lambda get: np.sqrt(get(operand) ** 2 + own)})
        text = f"epsilon, {own:g}, is the least that may be divided by, in PyTorch it is added"
        yield Attempt("epsilon_placed", text, {place: lambda get: np.maximum(get(operand), own)})


def _outside(operand: int, own: float, sign: float) -> Callable[[Get], Any]:
    return lambda get: (np.sqrt(get(operand)) + own) ** sign
