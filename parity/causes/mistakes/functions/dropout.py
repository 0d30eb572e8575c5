"""Dropout at work where there should be none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.bounds.judging import farthest, within
from parity.causes.cause import alike, distinct
from parity.causes.mistakes.attempts import FEWEST, Attempt, Problem, value
from parity.causes.mistakes.numbers.sums import operands


def dropped(problem: Problem) -> Iterator[Attempt]:
    """Values of a node that are zero, the others scaled alike: dropout at work. Only what ends in a sum can tell."""
    region = problem.region
    if problem.observed.shape != problem.right.shape:
        return
    places = [region.sink]
    if region.node(region.sink).op == "add":
        places += [p for _, p in operands(problem, region.sink)]
    for place in places:
        values = region.value(place)
        if values.shape != problem.right.shape:
            continue
        rest = problem.right - values if place != region.sink else 0.0
        with np.errstate(all="ignore"):
            ratio = (problem.observed - rest) / values
        kept = np.abs(ratio) > 1e-9
        alive = np.abs(values) > problem.tolerance  # what is zero anyway tells nothing
        share = float(kept[alive].mean()) if alive.any() else 1.0
        if not 0.02 < share < 0.999 or not np.isfinite(ratio[values != 0]).all():
            continue
        if distinct(values[kept & alive]) < FEWEST:
            continue
        factor = float(np.median(ratio[kept & alive]))
        if within(farthest(np.where(kept, factor * values, 0.0) + rest, problem.observed), problem.tolerance):
            words, lost = problem.words(place), {place: value(np.where(kept, factor * values, 0.0))}
            if alike(factor, 1.0):
                yield Attempt("zeroed", f"{1 - share:.0%} of {words} are zero, the rest is PyTorch's", lost)
                continue
            text = f"dropout is at work on {words}: {1 - share:.0%} are zero, the rest times {factor:.4g}"
            yield Attempt("dropout_at_test", text, lost)
