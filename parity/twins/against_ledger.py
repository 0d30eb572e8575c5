"""The first thing in which a run differs from what its settings ask for, by a ledger of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from parity.twins import ledger
from parity.twins.differences import ROUNDING, STEP_LIMIT, Difference, Largest, arrays, close, rows
from parity.twins.records import WHOLE, Record, part_of


def from_ledger(record: Record) -> Iterator[Difference]:
    """In what a whole run differs from what its settings ask for and what its steps gave."""
    side, steps, per_epoch = record.side, record.steps, record.per_epoch
    yield from _beginning(record)
    errors = {step: 1 - report.top1 for step, report in record.evaluations.items()}
    expected = ledger.rates(record.settings, len(steps), per_epoch, errors)
    for step, rate in zip(steps, expected, strict=True):
        if not close(step.rate, rate, ROUNDING):
            yield Difference(step.number, "learning rate", f"{side} {step.rate!r}, by its schedule {rate!r}")
    if len(steps) != (length := ledger.length(record)):
        yield Difference(length, "number of steps", f"{side} took {len(steps)}, by its settings {length}")
    yield from _averages(record)
    asked = ledger.evaluated_steps(record.settings, len(steps), per_epoch)
    if sorted(record.evaluations) != asked:
        yield Difference(0, "evaluated steps", f"{side} {sorted(record.evaluations)}, asked for {asked}")
        return
    tested = [] if record.settings["validation"] is None else [len(steps)]
    if sorted(record.tests) != tested:
        yield Difference(0, "tested steps", f"{side} {sorted(record.tests)}, asked for {tested}")
        return
    yield from rows(f"metrics of {side}", record.rows, ledger.rows(record))
    best = ledger.improvements(record)
    if record.best != best:
        yield Difference(best[0][0], "choice of the best", f"{side} {record.best}, better than all before were {best}")
    line = (record.said.strip().splitlines() or [""])[-1]
    if not line.startswith(ledger.conclusion(record)):
        yield Difference(len(steps), "last line", f"{side} {line!r}, should be {ledger.conclusion(record)!r}")
    for which, step in (("newest", len(steps)), ("best", best[-1][0])):
        if record.kept_steps.get(which) != step:
            found = record.kept_steps.get(which)
            yield Difference(step, f"{which} weights kept", f"{side} those after step {found}, not {step}")
            continue
        last = steps[step - 1]
        after = last.averages if which == "best" and record.settings.get("ema") else last.parameters
        kept = record.kept[which]
        for name in after.keys() | kept.keys():
            if name not in kept or name not in after or not np.array_equal(after[name], kept[name]):
                yield Difference(step, f"{which} weights kept, {name}", f"{side} kept others than it had")


def _beginning(record: Record) -> Iterator[Difference]:
    """Weights that aren't those of the file to begin with, and frozen ones that move."""
    side, first = record.side, record.first_parameters
    for name, array in ledger.begun_with(record.settings).items():
        # A new last layer has another number of classes here.
        if name not in first or (first[name].shape == array.shape and not np.array_equal(first[name], array)):
            yield Difference(0, f"weights {name}", f"{side} doesn't begin with those of {record.settings['init_from']}")
    layers = sorted({name.rpartition(".")[0] for name in first}, key=lambda name: int(re.sub(r"\D", "", name)))
    still = ledger.frozen(record.settings, layers)
    for step in record.steps if still else []:
        for name, array in step.parameters.items():
            if name.rpartition(".")[0] in still and not np.array_equal(array, part_of({name: first[name]})[name]):
                yield Difference(step.number, f"frozen weights {name}", f"{side} moved them")


def _averages(record: Record) -> Iterator[Difference]:
    """Averages of the weights that aren't those of the steps' own weights; of arrays that were kept whole."""
    decay = record.settings.get("ema")
    if decay is None:
        return
    expected = {name: array for name, array in record.first_parameters.items() if array.size <= WHOLE}
    for step in record.steps:
        for name, before in expected.items():
            expected[name] = decay * before + (1 - decay) * step.parameters[name]
            yield from (
                Difference(found.step, found.quantity, f"{record.side} has another than its weights make")
                for found in arrays(
                    step.number, f"average of {name}", step.averages.get(name), expected[name], STEP_LIMIT, Largest()
                )
            )
