"""Learning rates are compared wherever they may change, over whole runs and one drop beyond; plateaus on histories."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import schedules as jax_schedules
from parity.alexnet import rate_causes, rates
from parity.alexnet.rates import Place
from torch_ref import recipes as torch_recipes
from torch_ref import schedules as torch_schedules

ONE = ("cifar_13pct",)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network and one recipe: the rest of them is a matter of seconds."""
    monkeypatch.setattr(rates, "MODELS", ONE)
    monkeypatch.setattr(rates, "RECIPES", ("cifar",))


def wrong(rows: list[Any]) -> dict[str, list[str]]:
    return {row.torch_name: row.cause_keys for row in rows if not row.equal}


def test_every_place_where_a_rate_may_change_is_looked_at() -> None:
    settings = jax_recipes.resolve(TrainSettings(model="cifar_13pct", recipe="cifar", data="synthetic"))
    per_epoch = rates.steps_per_epoch(settings)
    assert per_epoch == math.ceil(50_000 / 128)
    seen = rates.places(settings)
    # The sources drop at epochs 450 and 460 of 470: the last step before, the first of, the second of these, and on.
    for epoch in (0, 450, 460, 470, 471):
        first = epoch * per_epoch
        expected = [Place((first + by) // per_epoch, first + by) for by in (-1, 0, 1) if first + by >= 0]
        assert set(expected) <= set(seen)
    stepped = replace(settings, schedule="every_steps", drop_every=1_000)
    steps = {place.step for place in rates.places(stepped)}
    assert {999, 1_000, 1_001, 183_000, 184_000} <= steps  # 470 epochs have 183,770 steps: the last is beyond


def test_the_frameworks_agree() -> None:
    rows = rates.rows()
    assert len(rows) == 7
    assert wrong(rows) == {}


def jax_behind(right: Any) -> Any:
    def learning_rate(settings: Any, epoch: int, step: int, plateau: Any = None) -> float:
        if settings.schedule != "at_epochs":
            return right(settings, epoch, step, plateau)
        return settings.learning_rate * settings.drop_factor ** sum(epoch > drop for drop in settings.drop_epochs)

    return learning_rate


def torch_behind(right: Any) -> Any:
    def learning_rate(schedule: Any, base: float, *, epoch: int, step: int) -> float:
        if not isinstance(schedule, torch_schedules.Milestones):
            return right(schedule, base, epoch=epoch, step=step)
        return base * schedule.factor ** sum(epoch > drop for drop in schedule.epochs)

    return learning_rate


@pytest.mark.parametrize(("owner", "change"), [(jax_schedules, jax_behind), (torch_schedules, torch_behind)])
def test_a_milestone_one_epoch_late_is_found(
    owner: Any, change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "learning_rate", change(owner.learning_rate))
    rows = rates.rows()
    assert wrong(rows) == {"cifar, own schedule": ["rate_late"], "cifar, at_epochs": ["rate_late"]}
    late = next(row for row in rows if not row.equal)
    assert late.detail == "first for cifar_13pct, epoch 450, step 175950, from 0"
    side = "JAX" if owner is jax_schedules else "PyTorch"
    assert late.causes[0].startswith(f"{side}: the learning rate comes one epoch late")


def shifted(right: Any) -> Any:
    return lambda schedule, base, *, epoch, step: right(schedule, base, epoch=epoch, step=max(step - 1, 0))


def longer(right: Any) -> Any:
    def learning_rate(schedule: Any, base: float, *, epoch: int, step: int) -> float:
        if isinstance(schedule, torch_schedules.EveryEpochs):
            schedule = replace(schedule, epochs=schedule.epochs + 1)
        return right(schedule, base, epoch=epoch, step=step)

    return learning_rate


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (shifted, {"cifar, every_steps": ["rate_late"], "cifar, cosine": ["rate_late"]}),
        (longer, {"cifar, every_epochs": ["rate_period"]}),
    ],
)
def test_other_rules_are_found(
    change: Callable[[Any], Any], found: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_schedules, "learning_rate", change(torch_schedules.learning_rate))
    assert wrong(rates.rows()) == found


@pytest.mark.parametrize("changes", [{"epochs": 480}, {"drop_epochs": (450, 461)}, {"learning_rate": 0.002}])
def test_recipes_that_differ_are_found(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(torch_recipes.CIFAR_LOCAL, **changes)
    monkeypatch.setattr(torch_recipes, "CIFAR_LOCAL", other)
    found = wrong(rates.rows())
    assert found["cifar, own schedule"] == ["rate_settings"]


COUNTERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: replace(s, patience=s.patience + 1), "rate_patience"),
    (lambda s: replace(s, patience=s.patience - 1), "rate_patience"),
    (lambda s: replace(s, cooldown=0), "rate_cooldown"),
    (lambda s: replace(s, cooldown=s.cooldown + 1), "rate_cooldown"),
    (lambda s: replace(s, factor=s.factor**2), "rate_factor"),
    (lambda s: replace(s, threshold=0.0), "rate_threshold"),
    (lambda s: replace(s, threshold=1e-3), "rate_threshold"),
]


@pytest.mark.parametrize(("change", "key"), COUNTERS)
def test_a_plateau_that_counts_otherwise_is_found(
    change: Callable[[Any], Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch_schedules.plateau
    monkeypatch.setattr(torch_schedules, "plateau", lambda schedule, optimizer: right(change(schedule), optimizer))
    found = wrong(rates.rows())
    assert found == {"cifar, plateau": [key]}


def test_the_rule_below_which_drops_are_left_out_is_exercised(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch_schedules.plateau

    def eager(schedule: Any, optimizer: Any) -> Any:
        scheduler = right(schedule, optimizer)
        scheduler.eps = 0.0
        return scheduler

    monkeypatch.setattr(torch_schedules, "plateau", eager)
    assert wrong(rates.rows()) == {"cifar, plateau": ["rate_eps"]}


def test_the_third_counter_counts_as_both_do() -> None:
    for number, (patience, cooldown, factor) in enumerate(rates._PLATEAUS):
        flags = {"plateau_patience": patience, "plateau_cooldown": cooldown, "drop_factor": factor}
        ours, theirs = rates._resolved("cifar_13pct", "cifar", {"schedule": "plateau", **flags})
        errors = rates.history(number)
        expected = rate_causes.Counter(1e-3, factor, patience, cooldown).rates(errors)
        np.testing.assert_array_equal(rates._jax_counts(ours, errors), expected)
        np.testing.assert_array_equal(rates._torch_counts(theirs, errors), expected)
        assert len(set(expected)) > 3
