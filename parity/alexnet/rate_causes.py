"""Naming what is wrong with a learning rate: one side's is the other's a step or an epoch later, or by another rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run import length
from parity.causes.layer.parameters import Cause


@dataclass(frozen=True, order=True)
class Place:
    """A step of a run: epochs and steps that were done before it."""

    epoch: int
    step: int


Rates = Callable[[CompleteSettings, Sequence[Place]], NDArray]


def rule_of(settings: CompleteSettings) -> dict[str, Any]:
    """What of a run's settings decides the learning rate of the weights."""
    names = ["schedule", "learning_rate", "epochs", "warmup_epochs", "warmup_steps"]
    match settings.schedule:
        case "every_epochs" | "every_steps":
            names += ["drop_every", "drop_factor"]
        case "at_epochs":
            names += ["drop_epochs", "drop_factor"]
        case "plateau":
            names += ["plateau_patience", "plateau_cooldown", "drop_factor"]
    return {name: getattr(settings, name) for name in names}


def of_settings(jax: CompleteSettings, torch: CompleteSettings, before: float) -> list[Cause]:
    """The cause of a difference that the two recipes make."""
    ours, theirs = rule_of(jax), rule_of(torch)
    apart = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    told = [f"{name} is {ours.get(name)} in JAX, {theirs.get(name)} in PyTorch" for name in apart]
    return [Cause("rate_settings", "between", f"the recipes differ: {', '.join(told)}", before, 0.0)] if told else []


def of_time(
    sides: Mapping[str, tuple[Rates, CompleteSettings]],
    places: list[Place],
    per_epoch: int,
    rates: Mapping[str, NDArray],
) -> list[Cause]:
    """Causes of a difference between rates that follow epochs and steps.

    Args:
        sides: by name, the rates and the settings that they are computed from.
        places: where; behind their rates comes the number of epochs.
        per_epoch: steps.
        rates: by side.
    """
    before = float(np.max(np.abs(rates["jax"] - rates["torch"])))
    if found := of_settings(sides["jax"][1], sides["torch"][1], before):
        return found
    n = len(places)
    for side, other in (("jax", "torch"), ("torch", "jax")):
        of_places, settings = sides[other]
        expected = [_expected(settings, p, per_epoch) for p in places]
        # Of a rate that falls to 0, a cosine's rounding is a part of the first one.
        near = {"rtol": 1e-12, "atol": 1e-14 * settings.learning_rate if settings.schedule == "cosine" else 0}
        if not np.allclose(expected, rates[other][:n], **near):
            continue  # this one is no witness: it isn't right itself
        for key, text, changed, moved in _mistakes(settings, places, per_epoch):
            predicted = of_places(changed, moved)
            if np.allclose(predicted, rates[side][:n], **near):
                return [Cause(key, side, text, before, float(np.max(np.abs(predicted - rates[side][:n]))))]
    factor = float(rates["jax"][0] / rates["torch"][0]) if rates["torch"][0] else 1.0
    if factor != 1 and np.allclose(rates["jax"][:n], rates["torch"][:n] * factor, rtol=1e-12, atol=0):
        return [Cause("rate_scaled", "between", f"JAX's learning rate is PyTorch's times {factor:.6g}", before, 0.0)]
    return []


def _expected(settings: CompleteSettings, place: Place, per_epoch: int) -> float:
    """The rate by the schedules' definitions."""
    rising = length.warmup_steps(settings, per_epoch)
    share = min(place.step + 1, rising + 1) / (rising + 1)
    if settings.schedule == "cosine":
        steps = length.last_step(settings, per_epoch)
        part = min(max((place.step - rising) / (steps - rising), 0.0), 1.0)
        return settings.learning_rate * share * np.cos(np.pi / 2 * part) ** 2
    drops = {
        "every_epochs": lambda: place.epoch // settings.drop_period,
        "every_steps": lambda: place.step // settings.drop_period,
        "at_epochs": lambda: sum(place.epoch >= drop for drop in settings.milestones),
    }.get(settings.schedule, lambda: 0)()
    return settings.learning_rate * settings.drop_factor**drops * share


def _mistakes(
    settings: CompleteSettings, places: list[Place], per_epoch: int
) -> Iterator[tuple[str, str, CompleteSettings, list[Place]]]:
    """What the other side may do: short name, text, its settings, and the places that it takes for these."""
    for shift, what in ((1, "late"), (-1, "early")):
        for first in (0, None):  # before the beginning there may be a beginning, or negative numbers
            steps = [max(p.step - shift, 0) if first == 0 else p.step - shift for p in places]
            moved = [Place(step // per_epoch, step) for step in steps]
            yield f"rate_{what}", f"the learning rate comes one step {what}", settings, moved
            moved = [Place(p.epoch - shift, p.step - shift * per_epoch) for p in places]
            moved = [Place(max(p.epoch, 0), max(p.step, 0)) for p in moved] if first == 0 else moved
            yield f"rate_{what}", f"the learning rate comes one epoch {what}", settings, moved
    if settings.drop_every is not None:
        for every in (settings.drop_every + 1, settings.drop_every - 1):
            if every > 0:
                text = f"the learning rate falls every {every}, not every {settings.drop_every}"
                yield "rate_period", text, replace(settings, drop_every=every), places
    for factor in (0.1, 0.5, 0.2):
        if factor != settings.drop_factor:
            text = f"a drop multiplies by {factor:g}, not by {settings.drop_factor:g}"
            yield "rate_factor", text, replace(settings, drop_factor=factor), places
    for drop in settings.milestones if settings.schedule == "at_epochs" else ():
        others = [epoch for epoch in settings.milestones if epoch != drop]
        changed = {"drop_epochs": others} if others else {"schedule": "constant"}
        yield "rate_drop_missing", f"the drop at epoch {drop} is left out", replace(settings, **changed), places
    yield "rate_constant", "the learning rate never falls", replace(settings, schedule="constant"), places


@dataclass(frozen=True)
class Counter:
    """The rule of PyTorch's ReduceLROnPlateau (mode min, relative threshold), written out from its documentation.

    Attributes:
        rate: the first.
        factor: what a drop multiplies it by.
        patience: epochs without progress that are tolerated.
        cooldown: epochs after a drop in which none are counted.
        threshold: progress means a value below (1 - threshold) times the best.
        eps: drops by less are left out.
        inclusive: whether the threshold itself is progress.
    """

    rate: float
    factor: float
    patience: int
    cooldown: int
    threshold: float = 1e-4
    eps: float = 1e-8
    inclusive: bool = False

    def rates(self, errors: NDArray) -> NDArray:
        """The rate of each epoch, before its error is known."""
        rate, best, bad, rest = self.rate, np.inf, 0, 0
        found = []
        for error in errors:
            found.append(rate)
            goal = best * (1 - self.threshold)
            progress = error <= goal if self.inclusive else error < goal
            best, bad = (error, 0) if progress else (best, bad + 1)
            if rest > 0:
                rest, bad = rest - 1, 0
            if bad > self.patience:
                rest, bad = self.cooldown, 0
                rate = rate * self.factor if rate - rate * self.factor > self.eps else rate
        return np.array(found)


def of_plateaus(
    settings: list[tuple[CompleteSettings, CompleteSettings]],
    histories: list[NDArray],
    rates: Mapping[str, list[NDArray]],
) -> list[Cause]:
    """Causes of a difference between two counters; they must explain every history.

    Args:
        settings: JAX's and PyTorch's for each history.
        histories: of the test error.
        rates: by side, for each history.
    """
    before = max(float(np.max(np.abs(a - b))) for a, b in zip(rates["jax"], rates["torch"], strict=True))
    for pair in settings:
        if found := of_settings(*pair, before):
            return found
    right = [Counter(s.learning_rate, s.drop_factor, s.plateau_patience, s.plateau_cooldown) for s, _ in settings]
    for side, other in (("jax", "torch"), ("torch", "jax")):
        if not _counts(right, histories, rates[other]):
            continue  # this one is no witness: it isn't right itself
        for key, text, change in _MISCOUNTS:
            if _counts([change(counter) for counter in right], histories, rates[side]):
                return [Cause(key, side, text, before, 0.0)]
    return []


def _counts(counters: list[Counter], histories: list[NDArray], rates: list[NDArray]) -> bool:
    return all(
        np.allclose(counter.rates(errors), found, rtol=1e-12, atol=0)
        for counter, errors, found in zip(counters, histories, rates, strict=True)
    )


_MISCOUNTS: tuple[tuple[str, str, Callable[[Counter], Counter]], ...] = (
    ("rate_patience", "one epoch less without progress is tolerated", lambda c: replace(c, patience=c.patience - 1)),
    ("rate_patience", "one epoch more without progress is tolerated", lambda c: replace(c, patience=c.patience + 1)),
    ("rate_cooldown", "there is no cooldown after a drop", lambda c: replace(c, cooldown=0)),
    ("rate_cooldown", "the cooldown is an epoch shorter", lambda c: replace(c, cooldown=max(c.cooldown - 1, 0))),
    ("rate_cooldown", "the cooldown is an epoch longer", lambda c: replace(c, cooldown=c.cooldown + 1)),
    ("rate_eps", "drops by less than 1e-8 are made too", lambda c: replace(c, eps=-1.0)),
    ("rate_threshold", "the threshold itself counts as progress", lambda c: replace(c, inclusive=True)),
    ("rate_threshold", "any value below the best counts as progress", lambda c: replace(c, threshold=0.0)),
    ("rate_threshold", "progress means a thousandth less than the best", lambda c: replace(c, threshold=1e-3)),
    ("rate_factor", "a drop multiplies by the square of the factor", lambda c: replace(c, factor=c.factor**2)),
    ("rate_constant", "the learning rate never falls", lambda c: replace(c, factor=1.0)),
)
