"""Mistakes in numbers at even distances, such as positions from -1 to 1: where they begin and end, and how they lie.

They are known by their values, wherever these come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.node_kinds import CONSTANT
from parity.causes.mistakes.attempts import Attempt, Problem, each_and_all, value

_FEWEST = 3


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Other numbers for all such constants at once, then for one after the other."""
    yield from each_and_all(_each(problem))


def _each(problem: Problem) -> Iterator[Attempt]:
    region = problem.region
    for place in region.places:
        if region.node(place).op not in (CONSTANT, "arange"):
            continue
        x = region.value(place)
        if isinstance(x, np.ndarray) and _even(x):
            row = x.ravel().astype(np.float64)
            own = f"evenly spaced from {row[0]:g} to {row[-1]:g}"
            for text, made in _others(row):
                yield Attempt("spacing", f"numbers are {text}, in PyTorch {own}", {place: value(made.reshape(x.shape))})


def _even(x: NDArray) -> bool:
    if (
        not np.issubdtype(x.dtype, np.floating)
        or x.size < _FEWEST
        or x.size != max(x.shape)
        or not np.isfinite(x).all()
    ):
        return False
    steps = np.diff(x.ravel())
    return bool(steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-5))


def _others(row: NDArray) -> Iterator[tuple[str, NDArray]]:
    first, last, n = float(row[0]), float(row[-1]), row.size
    i, width = np.arange(n), last - first
    step = width / (n - 1)
    yield "those of the middles of as many parts", first + width * (i + 0.5) / n
    yield "those of as many parts without the end", first + width * i / n
    yield "a part further, as if one more stood before them", row + step
    yield "a part less far, as if one stood before them that counts as the first", row - step
    yield "moved by half of their distance", row + step / 2
    yield "in reverse order", row[::-1]
    ends = [(0.0, last), (first, 1.0), (0.0, 1.0), (-1.0, 1.0), (first, 2 * last), (first, last / 2), (1.0, last)]
    ends += [(first, last + step), (first, last - step)]
    for a, b in ends:
        if (a, b) != (first, last) and a != b:
            yield f"evenly spaced from {a:g} to {b:g}", np.linspace(a, b, n)
    if first > 0 and last > 0:
        yield f"spaced by equal factors from {first:g} to {last:g}", np.geomspace(first, last, n)
