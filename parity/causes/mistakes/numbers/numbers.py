"""Another number where code has one: in a sum, a product, a power, a limit. Whatever it is, the values tell it.

One with the other sign is among `added_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Changes, run
from parity.causes.mistakes.attempts import Attempt, Problem, measured

# Arguments that are such numbers, by operation.
_ADDED = ("other",)
_LIMITS = ("min", "max")
_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "rsub", "fmod", "remainder", "maximum", "minimum"), _ADDED),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh", "clip"), (*_LIMITS, "min_val", "max_val")),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), _ADDED),
    "pow": ("exponent", "self"),
    "masked_fill": ("value",),
    "elu": ("alpha",),
    "softplus": ("beta",),
    "lerp": ("weight",),
    "leaky_relu": ("negative_slope",),
    "logit": ("eps",),
}
_COMPARED = ("gt", "ge", "lt", "le", "eq", "ne")
_USUAL_LIMITS = (0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 5.0, 6.0, 10.0, 20.0, 30.0, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each number, the last one first: others that are likely, then any."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        for name in _NAMES.get(node.op, ()):
            own = node.args.get(name)
            if isinstance(own, (int, float)) and not isinstance(own, bool) and math.isfinite(own):
                yield from _others(problem, place, name, float(own))
        if node.op in ("clamp", "hardtanh"):
            yield from _one_sided(problem, place)


def _others(problem: Problem, place: int, name: str, own: float) -> Iterator[Attempt]:
    node = problem.region.node(place)
    words = _words(problem.region, problem, place, name)

    def of(number: float) -> Changes:
        return {place: lambda get: run(node, get, **{name: number})}

    for number in _likely(node.op, own):
        yield Attempt("other_number", f"{words} {number:.6g}, not {own:.6g}", of(number))
    if node.op in _COMPARED or node.op == "masked_fill":
        return
    if (found := measured(problem, of, own, own)) is not None:
        yield Attempt("other_number", f"{words} {found:.6g}, not {own:.6g}", of(found))


def _likely(op: str, own: float) -> list[float]:
    """Numbers that are written for another one."""
    found = [2 * own, own / 2, own + 1, own - 1, own**2, 10 * own, own / 10, 0.0, 1.0]
    if own:
        found.append(1 / own)
    if own > 0:
        found += [math.sqrt(own), 1 - own, 1 - (1 - own) / 10]
    if op in ("clamp", "clamp_min", "clamp_max", "hardtanh", *_COMPARED):
        found += [*_USUAL_LIMITS, *(-each for each in _USUAL_LIMITS), *(1 - each for each in _USUAL_LIMITS[-5:])]
    return [each for each in dict.fromkeys(found) if each != own]


def _words(region: Region, problem: Problem, place: int, name: str) -> str:
    """What a number does."""
    node = region.node(place)
    start = next((p for p in node.parents), None)
    what = "something" if start is None else problem.words(start)
    return {
        "add": f"the number that is added to {what} is",
        "sub": f"the number that is subtracted from {what} is",
        "rsub": f"the number from which {what} is subtracted is",
        "mul": f"the factor of {what} is",
        "div": f"the divisor of {what} is",
        "pow": f"the {'exponent' if name == 'exponent' else 'base'} of the power of {what} is",
        "masked_fill": f"masked values of {what} are",
    }.get(node.op, f"the number of {node.op.strip('_')}({what}){_limit(name)} is")


def _limit(name: str) -> str:
    return {"min": ", its lower limit,", "max": ", its upper limit,"}.get(name.removesuffix("_val"), "")


def _one_sided(problem: Problem, place: int) -> Iterator[Attempt]:
    """Values that are limited on one side alone, or not at all."""
    node = problem.region.node(place)
    start = node.argument("self")
    low, high = (node.args.get(n, node.args.get(f"{n}_val")) for n in _LIMITS)
    if start is None or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return
    words = problem.words(start)

    def limited(get: Any, least: float = -np.inf, most: float = np.inf) -> Any:
        return np.clip(get(start), least, most)

    text = f"{words} is limited above, at {high:.6g}, and not below, at {low:.6g}"
    yield Attempt("limit_missing", text, {place: lambda get: limited(get, most=high)})
    text = f"{words} is limited below, at {low:.6g}, and not above, at {high:.6g}"
    yield Attempt("limit_missing", text, {place: lambda get: limited(get, least=low)})
