"""Other values in small tables of constants, such as a buffer of decays: found from what came out, and told.

How a buffer was filled isn't seen: it is made before the model runs. So its values are looked for by Gauss and Newton,
and believed where many more different numbers agree on them than there are. Two tables may be wrong at once, such as
the means and deviations of colours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.cause import distinct
from parity.causes.graph.node_kinds import CONSTANT
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import WRONG, Attempt, Problem, value

_MOST_VALUES = 16
_MOST_TABLES = 6  # of which two at once are tried
_AGREEING = 4  # numbers that must agree on each value
_STEPS = 9
_SHOWN = 4

Tables = dict[int, NDArray]


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The values that each such table would have, were it the only thing wrong; then those of two at once."""
    region, right, ours = problem.region, problem.right, problem.observed
    if not problem.measures or right.shape != ours.shape or not np.isfinite(ours).all():
        return
    told = distinct(ours[np.abs(right - ours) > problem.tolerance])
    tables: Tables = {}
    for place in (p for p in region.places if region.node(p).op == CONSTANT):
        own = region.value(place)
        if isinstance(own, np.ndarray) and np.issubdtype(own.dtype, np.floating) and 1 < own.size <= _MOST_VALUES:
            tables |= {place: own.astype(np.float64)} if np.isfinite(own).all() else {}
    few = dict(itertools.islice(tables.items(), _MOST_TABLES))
    for chosen in (*itertools.combinations(tables, 1), *itertools.combinations(few, 2)):
        own = {place: tables[place] for place in chosen}
        size = sum(each.size for each in own.values())
        if size <= _MOST_VALUES and told >= _AGREEING * size and (found := _solved(problem, own)) is not None:
            text = "; ".join(_words(found[place], own[place]) for place in chosen)
            yield Attempt("constant_values", f"{text}: {_filled(found, own)}", _changes(found), True)


def _solved(problem: Problem, own: Tables) -> Tables | None:
    """Values of constants with which what was observed comes out; None if there are none."""
    observed = problem.observed
    now, before = own, farthest(problem.right, observed)
    for step in range(_STEPS):
        here = problem.made(_changes(now))
        if problem.spent or here is None or here.shape != observed.shape or not np.isfinite(here).all():
            return None
        after = farthest(here, observed)
        if within(after, problem.tolerance):
            same = [np.allclose(now[place], own[place], rtol=1e-6, atol=0) for place in own]
            return None if any(same) else now
        if step > 1 and not after < 0.5 * before:
            return None
        before = min(before, after) if step else before
        slopes = _slopes(problem, now, here)
        if slopes is None:
            return None
        moves = np.linalg.lstsq(slopes, (observed - here).ravel(), rcond=None)[0]
        ends = np.cumsum([each.size for each in now.values()])[:-1]
        parts = zip(now.items(), np.split(moves, ends), strict=True)
        now = {place: values + part.reshape(values.shape) for (place, values), part in parts}
    return None


def _slopes(problem: Problem, now: Tables, here: NDArray) -> NDArray | None:
    """How what comes out changes with each value, a column each."""
    columns = []
    for place, values in now.items():
        for i in range(values.size):
            moved = values.copy()
            small = 1e-6 * max(abs(float(moved.flat[i])), 1e-3)
            moved.flat[i] += small
            try:
                other = problem.made(_changes({**now, place: moved}))
            except WRONG:
                return None
            if other is None or other.shape != here.shape or not np.isfinite(other).all():
                return None
            columns.append((other - here).ravel() / small)
    slopes = np.stack(columns, -1)
    return slopes if (np.abs(slopes).max(axis=0) > 0).all() else None


def _changes(tables: Tables) -> Changes:
    return {place: value(values) for place, values in tables.items()}


def _words(found: NDArray, own: NDArray) -> str:
    return f"constants are {_told(found)}, in PyTorch {_told(own)}"


def _filled(found: Tables, own: Tables) -> str:
    alike = (np.allclose(np.sort(found[p].ravel()), np.sort(own[p].ravel()), rtol=1e-6, atol=0) for p in own)
    return "the same numbers in another order" if all(alike) else "a table that is filled otherwise"


def _told(values: NDArray) -> str:
    words = ", ".join(f"{each:.6g}" for each in values.ravel()[:_SHOWN])
    return f"[{words}, ...]" if values.size > _SHOWN else f"[{words}]"
