"""Mistakes in soft caps, c tanh(x / c): left out, at another value, or where PyTorch has none. Logits have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from parity.causes.attempts import Attempt, Problem, measured
from parity.causes.graph_nodes import Changes, Node

_LEAST = 1e-12  # of 1 / c^2
USUAL = (50.0, 30.0, 20.0, 15.0, 100.0, 10.0)  # Gemma's and Grok's among them


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The caps that PyTorch has, the last one first; then one on what is handed on."""
    region, found = problem.region, False
    for place in reversed([p for p in region.operations if region.node(p).op == "tanh"]):
        inner = region.node(place).argument("self")
        outer = next((p for p in region.users(place) if _factor(region.node(p)) is not None), None)
        small = None if inner is None else _factor(region.node(inner))
        start = None if inner is None or small is None else region.node(inner).argument("self")
        cap = None if outer is None else _factor(region.node(outer))
        if outer is not None and inner is not None and cap is not None and small is None:
            text = f"{problem.words(inner)} is divided by {cap:.6g} before the tanh that is multiplied by it"
            yield Attempt("softcap", text, _capped(cap, inner, outer))
        if outer is None or start is None or cap is None:
            continue
        found, words = True, problem.words(start)
        yield Attempt("softcap_missing", f"{words} isn't capped by tanh, at {cap:.6g}", _without(start, outer))
        for usual in (c for c in USUAL if c != cap):
            text = f"{words} is capped at {usual:g}, not at {cap:.6g}"
            yield Attempt("softcap", text, _capped(usual, start, outer))
        if (other := found_cap(problem, lambda c, s=start, o=outer: _capped(c, s, o), cap)) is not None:
            yield Attempt(
                "softcap", f"{words} is capped at {other:.6g}, not at {cap:.6g}", _capped(other, start, outer)
            )
    if not found:
        yield from _too_many(problem)


def _too_many(problem: Problem) -> Iterator[Attempt]:
    """A cap at the end, where PyTorch has none: at a usual value, or at one that the numbers give."""
    sink, right = problem.region.sink, problem.right
    if not np.issubdtype(right.dtype, np.floating) or right.shape != problem.observed.shape:
        return

    def changes(c: float) -> Changes:
        return {sink: lambda get: c * np.tanh(right / c)}

    # x - c tanh(x / c) is x^3 / (3 c^2) and less: where c is large this gives it, and a start where it isn't.
    apart = float(np.vdot(right - problem.observed, right**3 / 3))
    guess = np.sqrt(float(np.vdot(right**3 / 3, right**3 / 3)) / apart) if apart > 0 else None
    for cap in USUAL:
        yield Attempt("softcap_added", f"{problem.words(sink)} is capped at {cap:g} by tanh", changes(cap))
    cap = None if guess is None else found_cap(problem, changes, float(guess), None)
    if cap is not None and abs(cap - 1) > 1e-6:  # that is a plain tanh
        yield Attempt("softcap_added", f"{problem.words(sink)} is capped at {cap:.6g} by tanh", changes(cap))


def found_cap(
    problem: Problem, changes: Callable[[float], Changes], start: float, right: float | None = 0.0
) -> float | None:
    """The cap c that explains what was observed; None if there is none.

    A cap far away is looked for by its inverse square, in which c tanh(x / c), about x - x^3 / (3 c^2), is nearly
    linear.

    Args:
        problem: to be explained.
        changes: what a cap makes of the code.
        start: where the search begins.
        right: the cap of the reference, 0 for `start`; None if it has none.
    """
    own = None if right is None else right or start
    if (near := measured(problem, changes, start, own)) is not None:
        return near
    own = None if own is None else own**-2
    found = measured(problem, lambda p: changes(max(p, _LEAST) ** -0.5), start**-2, own)
    return None if found is None or found <= _LEAST else found**-0.5


def _factor(node: Node) -> float | None:
    """The number that a node multiplies by, or divides by; None of others."""
    number = node.args.get("other")
    plain = node.op in ("mul", "div") and isinstance(number, (int, float)) and not isinstance(number, bool)
    return float(number) if plain and number else None


def _without(start: int, outer: int) -> Changes:
    return {outer: lambda get: get(start)}


def _capped(cap: float, start: int, outer: int) -> Changes:
    return {outer: lambda get: cap * np.tanh(get(start) / cap)}
