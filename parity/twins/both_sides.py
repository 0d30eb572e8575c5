"""The first thing in which the twins differ: JAX's run and PyTorch's, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from alexnet_io.run.evaluation import EvaluationReport
from parity.twins.differences import (
    GROWTH,
    LAST_LIMIT,
    ROUNDING,
    STEP_LIMIT,
    Difference,
    Largest,
    arrays,
    close,
    scalars,
)
from parity.twins.records import Record, StepRecord

INPUT_LIMIT = 1e-14  # what a step's input is made of is rounded a few times, in float64; of its largest value


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
        yield from arrays(
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
    yield from scalars(len(jax.steps), "choice of the best", jax.best, torch.best)
    yield from scalars(len(jax.steps), "exit code", jax.code, torch.code)


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
    if not close(ours.rate, theirs.rate, ROUNDING):
        yield Difference(number, "learning rate", f"JAX {ours.rate!r}, PyTorch {theirs.rate!r}")
    yield from _inputs(ours, theirs, largest)
    limit = min(STEP_LIMIT * GROWTH**number, LAST_LIMIT)
    for name in ("loss", "top1", "top5", "examples"):
        one, other = (getattr(step.sums, name, math.nan) for step in (ours, theirs))
        exact = name != "loss"
        if not (one == other if exact else close(one, other, limit)):
            yield Difference(number, name, f"JAX {one!r}, PyTorch {other!r}")
    kinds = (
        ("weights ", ours.parameters, theirs.parameters),
        ("", ours.slots, theirs.slots),
        ("average of ", ours.averages, theirs.averages),
    )
    for what, one, other in kinds:
        for name in sorted(one.keys() | other.keys()):
            yield from arrays(number, what + name, one.get(name), other.get(name), limit, largest)


def _inputs(ours: StepRecord, theirs: StepRecord, largest: Largest) -> Iterator[Difference]:
    one, other = ours.input, theirs.input
    if one is None or other is None or one.shape != other.shape:
        shapes = [None if x is None else x.shape for x in (one, other)]
        yield Difference(ours.number, "input", f"JAX {shapes[0]}, PyTorch {shapes[1]}")
        return
    # Rows that only fill the batch up weigh nothing, but are made alike all the same.
    for place in range(len(one)):
        for found in arrays(ours.number, "input", one[place], other[place], INPUT_LIMIT, largest):
            yield Difference(found.step, found.quantity, f"image {ours.ids[place]} at place {place}, {found.text}")


def _evaluation(
    step: int, one: EvaluationReport | None, other: EvaluationReport | None, limit: float, largest: Largest
) -> Iterator[Difference]:
    if one is None or other is None:
        missing = "JAX" if one is None else "PyTorch"
        yield Difference(step, "evaluation", f"{missing} did not evaluate")
        return
    for name in ("examples", "top1", "top5"):
        yield from scalars(step, f"evaluation, {name}", getattr(one, name), getattr(other, name))
    if not close(one.loss, other.loss, limit):
        yield Difference(step, "evaluation, loss", f"JAX {one.loss!r}, PyTorch {other.loss!r}")
    if not np.array_equal(one.confusion, other.confusion):
        yield Difference(step, "evaluation, confusion", "other guesses")


def _plateau(step: int, one: dict[str, float], other: dict[str, float]) -> Iterator[Difference]:
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name, math.nan), other.get(name, math.nan)
        if not (a == b or close(a, b, ROUNDING)):  # a plateau's best is infinite at first
            yield Difference(step, f"plateau, {name}", f"JAX {a!r}, PyTorch {b!r}")
