"""The first thing in which two recorded runs differ, or in which one differs from what its settings ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.metrics import MetricsRow
from parity.bounds import judging
from parity.twins import ledger
from parity.twins.records import WHOLE, Record, StepRecord, part_of

# In float64: what a step's input is made of is rounded a few times; a step is a few thousand roundings, and each step
# doubles what the one before left, at most. All are fractions of the largest value of the array.
INPUT_LIMIT, STEP_LIMIT, GROWTH, LAST_LIMIT = 1e-14, 1e-13, 2.0, 1e-9
ROUNDING = 1e-14  # of single numbers that both sides compute in Python's floats
_UNLIKE = "differs from the run that nothing disturbed"


@dataclass(frozen=True)
class Difference:
    """Where two sides part.

    Attributes:
        step: number of the step, from 1; 0 before the first.
        quantity: what differs, such as `learning rate` or `weights conv1.weight`.
        text: both values.
    """

    step: int
    quantity: str
    text: str

    def __str__(self) -> str:
        where = f"step {self.step}" if self.step else "before the first step"
        return f"{where}, {self.quantity}: {self.text}"


@dataclass
class Largest:
    """The largest fraction of a limit that was used by quantities that agree."""

    fraction: float = 0.0
    quantity: str = "nothing"
    step: int = 0

    def __str__(self) -> str:
        return f"at most {self.fraction:.2g} of a limit, by {self.quantity} at step {self.step}"


def between(jax: Record, torch: Record, largest: Largest) -> Iterator[Difference]:
    """In what two whole runs differ, step by step and in the order in which a step makes it."""
    yield from _settings(jax, torch)
    if len(jax.steps) != len(torch.steps):
        yield Difference(
            min(len(jax.steps), len(torch.steps)) + 1,
            "number of steps",
            f"JAX took {len(jax.steps)}, PyTorch {len(torch.steps)}",
        )
    names = sorted(jax.first_parameters.keys() | torch.first_parameters.keys())
    for name in names:
        yield from _arrays(
            0, f"weights {name}", jax.first_parameters.get(name), torch.first_parameters.get(name), 0.0, largest
        )
    for ours, theirs in zip(jax.steps, torch.steps, strict=False):
        yield from _step(ours, theirs, largest)
        number = ours.number
        limit = min(STEP_LIMIT * GROWTH**number, LAST_LIMIT)
        if number in jax.evaluations or number in torch.evaluations:
            yield from _evaluation(number, jax.evaluations.get(number), torch.evaluations.get(number), limit, largest)
        if number in jax.tests or number in torch.tests:
            yield from _evaluation(number, jax.tests.get(number), torch.tests.get(number), limit, largest)
        if number in jax.plateaus or number in torch.plateaus:
            yield from _plateau(number, jax.plateaus.get(number, {}), torch.plateaus.get(number, {}))
    yield from _scalars(len(jax.steps), "choice of the best", jax.best, torch.best)
    yield from _scalars(len(jax.steps), "exit code", jax.code, torch.code)


def from_ledger(record: Record) -> Iterator[Difference]:
    """In what a whole run differs from what its settings ask for and what its steps gave."""
    side, steps, per_epoch = record.side, record.steps, record.per_epoch
    yield from _beginning(record)
    errors = {step: 1 - report.top1 for step, report in record.evaluations.items()}
    expected = ledger.rates(record.settings, len(steps), per_epoch, errors)
    for step, rate in zip(steps, expected, strict=True):
        if not _close(step.rate, rate, ROUNDING):
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
    yield from _rows(f"metrics of {side}", record.rows, ledger.rows(record))
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
                for found in _arrays(
                    step.number, f"average of {name}", step.averages.get(name), expected[name], STEP_LIMIT, Largest()
                )
            )


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
    yield from _rows(f"metrics of {record.side}", record.rows, straight.rows)
    yield from _scalars(last, "exit code", record.code, straight.code)
    for which in ("newest", "best"):
        same = record.kept_steps.get(which) == straight.kept_steps[which] and all(
            np.array_equal(record.kept[which][name], value) for name, value in straight.kept[which].items()
        )
        if not same:
            yield Difference(
                last, f"{which} weights kept", f"{record.side} differs from the run that nothing disturbed"
            )
    ours, theirs = (_conclusion(one.said) for one in (record, straight))
    yield from _scalars(last, "last line", ours, theirs)


def _conclusion(said: str) -> str:
    return (said.strip().splitlines() or [""])[-1].partition("; the run lies in")[0]


def _settings(jax: Record, torch: Record) -> Iterator[Difference]:
    for name, value in jax.settings.items():
        if name not in ("output", "cpu_convolution") and torch.settings.get(name) != value:
            yield Difference(0, f"setting {name}", f"JAX {value!r}, PyTorch {torch.settings.get(name)!r}")


def _step(ours: StepRecord, theirs: StepRecord, largest: Largest) -> Iterator[Difference]:
    number = ours.number
    if not np.array_equal(ours.ids, theirs.ids):
        place = int(np.argmax(ours.ids != theirs.ids))
        text = f"place {place} of the batch is image {ours.ids[place]} in JAX, {theirs.ids[place]} in PyTorch"
        yield Difference(number, "examples", text)
        return
    for quantity in ("labels", "weights", "images"):
        one, other = getattr(ours, quantity), getattr(theirs, quantity)
        if not np.array_equal(one, other):
            wrong = (one != other).reshape(len(one), -1).any(axis=1)
            text = f"image {ours.ids[np.argmax(wrong)]} at place {np.argmax(wrong)} of the batch"
            yield Difference(number, {"weights": "padding"}.get(quantity, quantity), text)
    if not _close(ours.rate, theirs.rate, ROUNDING):
        yield Difference(number, "learning rate", f"JAX {ours.rate!r}, PyTorch {theirs.rate!r}")
    yield from _inputs(ours, theirs, largest)
    limit = min(STEP_LIMIT * GROWTH**number, LAST_LIMIT)
    for name in ("loss", "top1", "top5", "examples"):
        one, other = (getattr(step.sums, name, math.nan) for step in (ours, theirs))
        exact = name != "loss"
        if not (one == other if exact else _close(one, other, limit)):
            yield Difference(number, name, f"JAX {one!r}, PyTorch {other!r}")
    kinds = (
        ("weights ", ours.parameters, theirs.parameters),
        ("", ours.slots, theirs.slots),
        ("average of ", ours.averages, theirs.averages),
    )
    for what, one, other in kinds:
        for name in sorted(one.keys() | other.keys()):
            yield from _arrays(number, what + name, one.get(name), other.get(name), limit, largest)


def _inputs(ours: StepRecord, theirs: StepRecord, largest: Largest) -> Iterator[Difference]:
    one, other = ours.input, theirs.input
    if one is None or other is None or one.shape != other.shape:
        shapes = [None if x is None else x.shape for x in (one, other)]
        yield Difference(ours.number, "input", f"JAX {shapes[0]}, PyTorch {shapes[1]}")
        return
    # Rows that only fill the batch up weigh nothing, but are made alike all the same.
    for place in range(len(one)):
        for found in _arrays(ours.number, "input", one[place], other[place], INPUT_LIMIT, largest):
            yield Difference(found.step, found.quantity, f"image {ours.ids[place]} at place {place}, {found.text}")


def _arrays(
    step: int, quantity: str, one: NDArray[Any] | None, other: NDArray[Any] | None, limit: float, largest: Largest
) -> Iterator[Difference]:
    scale = 0.0 if other is None else float(np.max(np.abs(other), initial=0.0))
    judged = judging.judge(one, other, limit * scale)
    if not judged.equal:
        values = f"at {judged.index} JAX {judged.ours!r}, PyTorch {judged.theirs!r}; largest value {scale:.3g}"
        yield Difference(step, quantity, f"{judged.verdict} {judged.detail} {values}".replace("  ", " "))
    elif judged.fraction > largest.fraction:
        largest.fraction, largest.quantity, largest.step = judged.fraction, quantity, step


def _close(one: float, other: float, limit: float) -> bool:
    """Whether two numbers differ by no more than a part of the second."""
    return judging.judge(one, other, limit * abs(other)).equal


def _evaluation(
    step: int, one: EvaluationReport | None, other: EvaluationReport | None, limit: float, largest: Largest
) -> Iterator[Difference]:
    if one is None or other is None:
        missing = "JAX" if one is None else "PyTorch"
        yield Difference(step, "evaluation", f"{missing} did not evaluate")
        return
    for name in ("examples", "top1", "top5"):
        yield from _scalars(step, f"evaluation, {name}", getattr(one, name), getattr(other, name))
    if not _close(one.loss, other.loss, limit):
        yield Difference(step, "evaluation, loss", f"JAX {one.loss!r}, PyTorch {other.loss!r}")
    if not np.array_equal(one.confusion, other.confusion):
        yield Difference(step, "evaluation, confusion", "other guesses")


def _plateau(step: int, one: dict[str, float], other: dict[str, float]) -> Iterator[Difference]:
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name, math.nan), other.get(name, math.nan)
        if not (a == b or _close(a, b, ROUNDING)):  # a plateau's best is infinite at first
            yield Difference(step, f"plateau, {name}", f"JAX {a!r}, PyTorch {b!r}")


def _scalars(step: int, quantity: str, one: object, other: object) -> Iterator[Difference]:
    if one != other:
        yield Difference(step, quantity, f"{one} and {other}")


def _rows(what: str, found: list[MetricsRow], expected: list[MetricsRow]) -> Iterator[Difference]:
    for one, other in zip(found, expected, strict=False):
        for name, a in vars(one).items():
            b = getattr(other, name)
            if name == "images_per_second":
                continue
            same = _close(a, b, 10 * ROUNDING) if isinstance(a, float) and isinstance(b, float) else a == b
            if not same:
                yield Difference(other.step, f"{what}, {other.split} {name}", f"the file has {a!r}, not {b!r}")
    if len(found) != len(expected):
        rows = [[(row.step, row.split) for row in side] for side in (found, expected)]
        yield Difference(0, what, f"the file has rows {rows[0]}, not {rows[1]}")
