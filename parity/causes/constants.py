"""Other values in a small table of constants, such as a buffer of decays: found from what came out, and told.

How a buffer was filled isn't seen: it is made before the model runs. So its values are looked for by Gauss and Newton,
and believed where many more different numbers agree on them than there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.attempts import WRONG, Attempt, Problem, value
from parity.causes.cause import distinct
from parity.causes.node_kinds import CONSTANT

_MOST_VALUES = 16
_AGREEING = 4  # numbers that must agree on each value
_STEPS = 6
_SHOWN = 4


def attempts(problem: Problem) -> Iterator[Attempt]:
    """The values that each such table would have, were it the only thing wrong."""
    region, right, ours = problem.region, problem.right, problem.observed
    if not problem.measures or right.shape != ours.shape or not np.isfinite(ours).all():
        return
    wrong = ours[np.abs(right - ours) > problem.tolerance]
    for place in (p for p in region.places if region.node(p).op == CONSTANT):
        own = region.value(place)
        if not isinstance(own, np.ndarray) or not np.issubdtype(own.dtype, np.floating):
            continue
        if 1 < own.size <= _MOST_VALUES and distinct(wrong) >= _AGREEING * own.size and np.isfinite(own).all():
            found = _solved(problem, place, own)
            if found is not None:
                text = f"constants are {_told(found)}, in PyTorch {_told(own)}: a table that is filled otherwise"
                yield Attempt("constant_values", text, {place: value(found)}, True)


def _solved(problem: Problem, place: int, own: NDArray) -> NDArray | None:
    """Values of a constant with which what was observed comes out; None if there are none."""
    observed = problem.observed
    now, before = own.astype(np.float64), farthest(problem.right, observed)
    for step in range(_STEPS):
        here = problem.made({place: value(now)})
        if problem.spent or here is None or here.shape != observed.shape or not np.isfinite(here).all():
            return None
        after = farthest(here, observed)
        if within(after, problem.tolerance):
            return None if np.allclose(now, own, rtol=1e-6, atol=0) else now
        if step > 1 and not after < 0.5 * before:
            return None
        before = min(before, after) if step else before
        slopes = _slopes(problem, place, now, here)
        if slopes is None:
            return None
        now = now + np.linalg.lstsq(slopes, (observed - here).ravel(), rcond=None)[0].reshape(now.shape)
    return None


def _slopes(problem: Problem, place: int, now: NDArray, here: NDArray) -> NDArray | None:
    """How what comes out changes with each value, a column each."""
    columns = []
    for i in range(now.size):
        moved = now.copy()
        small = 1e-6 * max(abs(float(moved.flat[i])), 1e-3)
        moved.flat[i] += small
        try:
            other = problem.made({place: value(moved)})
        except WRONG:
            return None
        if other is None or other.shape != here.shape or not np.isfinite(other).all():
            return None
        columns.append((other - here).ravel() / small)
    slopes = np.stack(columns, -1)
    return slopes if (np.abs(slopes).max(axis=0) > 0).all() else None


def _told(values: NDArray) -> str:
    words = ", ".join(f"{each:.6g}" for each in values.ravel()[:_SHOWN])
    return f"[{words}, ...]" if values.size > _SHOWN else f"[{words}]"
