"""Two planted bugs at once: teacher forcing must keep them apart, and both must be named."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from parity.mutants import trials
from parity.mutants.mutant import Mutant
from parity.mutants.score import PairOutcome
from parity.reports.report import Report

# Ids of mutants that share a network. Different layers, both orders, one side or both; the last three share a layer.
PAIRS = (
    ("01-lrn-alpha-jax", "12-groups-exchanged-torch"),
    ("02-lrn-k-torch", "15-bias-missing-jax"),
    ("08-kernel-hw-torch", "13-fc-order-jax"),
    ("18-pool-size-jax", "40-channel-swapped-torch"),
    ("37-stride-jax", "14-fc-transposed-torch"),
    ("39-padding-jax", "41-scaled-jax"),
    ("43-bgr-jax", "42-one-weight-torch"),
    ("07-order-lrn-pool-jax", "11-groups-interleaved-jax"),
    ("36-rnorm-size-jax", "38-pool-area-torch"),
    ("01-lrn-alpha-jax", "03-lrn-beta-jax"),
    ("02-lrn-k-jax", "05-lrn-radius-torch"),
    ("37-stride-jax", "08-kernel-hw-jax"),
)


def run(
    names: Iterable[str] = (), show: Callable[[PairOutcome], None] = lambda outcome: None, *, model: str = "all"
) -> list[PairOutcome]:
    """Plant every pair of which both ids hold one of the names, or all.

    Args:
        names: parts of ids.
        show: called with each outcome as soon as it is there.
        model: only pairs in this network, or `all`.
    """
    wanted = tuple(names)
    known = {mutant.id: mutant for mutant in trials.all_mutants()}
    outcomes = []
    for ids in PAIRS:
        if wanted and not all(any(name in each for name in wanted) for each in ids):
            continue
        if model not in (known[ids[0]].model, "all"):
            continue
        outcomes.append(_one(known[ids[0]], known[ids[1]]))
        show(outcomes[-1])
        gc.collect()
    return outcomes


def _one(first: Mutant, second: Mutant) -> PairOutcome:
    pair = trials.build(first)
    with ExitStack() as planted:
        both = planted.enter_context(second.plant(planted.enter_context(first.plant(pair))))
        report = trials.compare(first, pair, both)
    return judged(first, second, report)


def judged(first: Mutant, second: Mutant, report: Report) -> PairOutcome:
    """Whether a report names both bugs."""
    rows: list[Any] = list(report.divergences)
    layers = list(dict.fromkeys(row.name for row in rows))
    causes = list(dict.fromkeys(key for row in rows for key in row.cause_keys))
    return PairOutcome(
        (first.id, second.id),
        layers,
        causes,
        all(set(layers) & set(mutant.layers) for mutant in (first, second)),
        all(set(causes) & set(mutant.causes) for mutant in (first, second)),
    )
