"""What a run must have written, decided and kept, worked out anew from its settings and from what its steps gave.

The third witness of a run's bookkeeping, which both training programs share.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from alexnet_io.files import tensor_file
from alexnet_io.run.engine import Sums
from alexnet_io.run.metrics import MetricsRow
from parity.twins.records import Arrays, Record


def rates(settings: dict[str, Any], steps: int, per_epoch: int, errors: dict[int, float]) -> list[float]:
    """Learning rate of each of `steps` steps, as the schedules are defined.

    Args:
        settings: completed, as plain values.
        steps: how many.
        per_epoch: steps of an epoch.
        errors: test error after the step that ended an epoch, for a plateau.
    """
    base, factor, every = settings["learning_rate"], settings["drop_factor"], settings["drop_every"]
    rising = _warmup(settings, per_epoch)
    if settings["schedule"] == "plateau":
        found = _plateau_rates(settings, steps, per_epoch, errors)
    elif settings["schedule"] == "cosine":
        falling = _whole_length(settings, per_epoch) - rising
        angles = [math.pi * max(done - rising, 0) / falling for done in range(steps)]
        found = [base * math.cos(angle / 2) ** 2 for angle in angles]
    else:
        drops = {
            "constant": lambda done: 0,
            "every_steps": lambda done: done // every,
            "every_epochs": lambda done: done // per_epoch // every,
            "at_epochs": lambda done: sum(done // per_epoch >= epoch for epoch in settings["drop_epochs"]),
        }[settings["schedule"]]
        found = [base * factor ** drops(done) for done in range(steps)]
    return [rate * min(done + 1, rising + 1) / (rising + 1) for done, rate in enumerate(found)]


def _warmup(settings: dict[str, Any], per_epoch: int) -> int:
    """Steps in which the rate still rises."""
    epochs = settings.get("warmup_epochs")
    return settings.get("warmup_steps") or (0 if epochs is None else round(epochs * per_epoch))


def _whole_length(settings: dict[str, Any], per_epoch: int) -> int:
    """Steps of a run that nothing ends sooner."""
    lengths = (settings["epochs"] * per_epoch, settings.get("steps") or math.inf)
    return int(min(lengths))


def length(record: Record) -> int:
    """After how many steps a run must end: at its end, or once its best evaluation is as old as its patience."""
    settings, per_epoch = record.settings, record.per_epoch
    best, best_step = -math.inf, 0
    for step, report in sorted(record.evaluations.items()):
        if report.top1 > best:
            best, best_step = report.top1, step
        patience = settings.get("patience")
        if patience is not None and step % per_epoch == 0 and step - best_step >= patience * per_epoch:
            return step
    return _whole_length(settings, per_epoch)


def _plateau_rates(settings: dict[str, Any], steps: int, per_epoch: int, errors: dict[int, float]) -> list[float]:
    """PyTorch's documented rule: an epoch is bad unless it is better than the best by a ten-thousandth of it."""
    rate, best, bad, resting = settings["learning_rate"], math.inf, 0, 0
    found = []
    for done in range(steps):
        if done and done % per_epoch == 0:
            error = errors[done]
            better = error < best * (1 - 1e-4)
            best, bad = (error, 0) if better else (best, bad + 1)
            if resting:
                resting, bad = resting - 1, 0
            if bad > settings["plateau_patience"]:
                lower = rate * settings["drop_factor"]
                rate = lower if rate - lower > 1e-8 else rate
                resting, bad = settings["plateau_cooldown"], 0
        found.append(rate)
    return found


def frozen(settings: dict[str, Any], layers: list[str]) -> set[str]:
    """The layers that `--freeze` names: single ones, and all from one to another, in the network's order."""
    found: set[str] = set()
    for word in (settings.get("freeze") or "").split(","):
        ends = [layers.index(name.strip()) for name in word.split("..") if name.strip()]
        found.update(layers[ends[0] : ends[-1] + 1] if ends else [])
    return found


def begun_with(settings: dict[str, Any]) -> Arrays:
    """The weights that a run must begin with: those of its file, whose last layer only has the run's classes by chance.

    Only files in PyTorch's names and layouts are read here.
    """
    if settings.get("init_from") is None:
        return {}
    arrays, _ = tensor_file.read(Path(settings["init_from"]))
    return dict(arrays)


def evaluated_steps(settings: dict[str, Any], steps: int, per_epoch: int) -> list[int]:
    """After which steps the images that steer the run are evaluated: ends of epochs, as asked for, and the end."""
    every = 1 if settings["schedule"] == "plateau" else settings["evaluate_every"]
    ends = [step for step in range(per_epoch, steps + 1, per_epoch) if step // per_epoch % every == 0]
    return sorted({*ends, steps})


def rows(record: Record) -> list[MetricsRow]:
    """The rows of a whole run's metrics file, speeds left out, in the order in which they are written."""
    settings, per_epoch, last = record.settings, record.per_epoch, record.steps[-1].number
    split = "test" if settings["validation"] is None else "validation"
    found, sums = [], Sums()
    evaluated = evaluated_steps(settings, last, per_epoch)
    for step in record.steps:
        sums = sums + (step.sums or Sums())
        epoch: float = step.number / per_epoch
        if step.number % settings["log_every"] == 0 or step.number % per_epoch == 0 or step.number == last:
            means = (sums.loss / sums.examples, sums.top1 / sums.examples, sums.top5 / sums.examples)
            found.append(MetricsRow(step.number, epoch, "train", *means, step.rate))
            sums = Sums()
        if step.number in evaluated and step.number in record.evaluations:
            report = record.evaluations[step.number]
            epoch = step.number // per_epoch if step.number % per_epoch == 0 else epoch
            found.append(MetricsRow(step.number, epoch, split, report.loss, report.top1, report.top5, step.rate))
        if step.number == last and split != "test" and last in record.tests:
            report = record.tests[last]
            found.append(MetricsRow(step.number, epoch, "test", report.loss, report.top1, report.top5, step.rate))
    return found


def improvements(record: Record) -> list[tuple[int, float]]:
    """Steps whose weights were better on the images that steer the run than any before, with their top-1."""
    best, found = -math.inf, []
    for step, report in sorted(record.evaluations.items()):
        if report.top1 > best:
            best = report.top1
            found.append((step, report.top1))
    return found


def conclusion(record: Record) -> str:
    """The last line that the program must print, up to the place of its directory."""
    last = record.steps[-1].number
    validated = record.settings["validation"] is not None
    report, (best_step, best) = (record.tests if validated else record.evaluations)[last], improvements(record)[-1]
    where = " on the validation images" if validated else ""
    return (
        f"reached {report.top1:.2%} on {report.examples} test images after {last} steps (best {best:.2%}{where}, step "
        f"{best_step}); the run lies in "
    )
