"""The first thing in which a run that was disturbed and resumed differs from the one that nothing disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.twins.differences import Difference, rows, scalars
from parity.twins.records import Record

_UNLIKE = "differs from the run that nothing disturbed"


def from_straight(record: Record, straight: Record, before: int) -> Iterator[Difference]:
    """In what a run that was disturbed and resumed differs from the one that nothing disturbed: bit for bit.

    Args:
        record: what was done after the resumption, with the rows and files of the whole run.
        straight: the undisturbed run of the same side.
        before: steps that the checkpoint held.
    """
    expected = straight.steps[before:]
    if [step.number for step in record.steps] != [step.number for step in expected]:
        numbers = [step.number for step in record.steps]
        yield Difference(before + 1, "steps", f"{record.side} took {numbers} after the resumption")
    for ours, theirs in zip(record.steps, expected, strict=False):
        compared: list[tuple[str, Any, Any]] = [
            ("examples", ours.ids, theirs.ids),
            ("learning rate", ours.rate, theirs.rate),
            ("input", ours.input, theirs.input),
            ("loss and hits", ours.sums, theirs.sums),
            *((f"weights {name}", ours.parameters[name], theirs.parameters[name]) for name in theirs.parameters),
            *((name, ours.slots.get(name), theirs.slots[name]) for name in theirs.slots),
            *((f"average of {name}", ours.averages.get(name), value) for name, value in theirs.averages.items()),
        ]
        for quantity, one, other in compared:
            same = np.array_equal(one, other) if isinstance(other, np.ndarray) else one == other
            if not same:
                yield Difference(ours.number, quantity, f"{record.side} {_UNLIKE}")
    last = straight.steps[-1].number
    for step, counted in record.plateaus.items():
        if counted != straight.plateaus.get(step):
            yield Difference(step, "plateau", f"{record.side} {_UNLIKE}")
    yield from rows(f"metrics of {record.side}", record.rows, straight.rows)
    yield from scalars(last, "exit code", record.code, straight.code)
    for which in ("newest", "best"):
        same = record.kept_steps.get(which) == straight.kept_steps[which] and all(
            np.array_equal(record.kept[which][name], value) for name, value in straight.kept[which].items()
        )
        if not same:
            yield Difference(
                last, f"{which} weights kept", f"{record.side} differs from the run that nothing disturbed"
            )
    ours, theirs = (_conclusion(one.said) for one in (record, straight))
    yield from scalars(last, "last line", ours, theirs)


def _conclusion(said: str) -> str:
    return (said.strip().splitlines() or [""])[-1].partition("; the run lies in")[0]
