"""Mistakes in numbers that values are kept between: none, another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import Attempt, Problem, measured

_OF = {"clamp": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",), "hardtanh": ("min_val", "max_val")}
_CUT = {"min": np.maximum, "min_val": np.maximum, "max": np.minimum, "max_val": np.minimum}
_WORDS = {"min": "least", "min_val": "least", "max": "largest", "max_val": "largest"}
_STARTS = (0.5, 0.2, 0.8)  # of the values: where among them the search for a limit begins


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Each limit left out, or another one, which the numbers give; the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("self")
        if start is None or not np.issubdtype(np.asarray(region.value(start)).dtype, np.floating):
            continue
        limits = {name: node.args.get(name) for name in _OF.get(node.op, ())}
        known = {name: float(n) for name, n in limits.items() if isinstance(n, (int, float))}
        for name, own in known.items():
            words = f"the {_WORDS[name]} value that {problem.words(start)} may have"
            rest = {other: n for other, n in known.items() if other != name}
            yield Attempt(
                "limit_missing", f"there is no limit: {words}, {own:.6g}, is left out", _cut(place, start, rest)
            )
            for begin in _begins(region, start):
                made = _limited(place, start, rest, name)
                if (number := measured(problem, made, begin, own)) is not None:
                    yield Attempt("limit", f"{words} is {number:.6g}, not {own:.6g}", made(number))
                    break


def _begins(region: Region, start: int) -> Iterator[float]:
    values = np.asarray(region.value(start), np.float64)
    yield from dict.fromkeys(float(np.quantile(values, share)) for share in _STARTS if values.size)


def _limited(place: int, start: int, rest: dict[str, float], name: str) -> Callable[[float], Changes]:
    return lambda number: _cut(place, start, {**rest, name: number})


def _cut(place: int, start: int, limits: dict[str, float]) -> Changes:
    def change(get: Callable[[int], np.ndarray]) -> np.ndarray:
        x = get(start)
        for name, number in limits.items():
            x = _CUT[name](x, number)
        return x

    return {place: change}
