"""Learning rates of both frameworks: every recipe, network and schedule, over a run's whole length and one drop beyond.

A rate follows the epoch or the step, so it may change where an epoch begins and at every multiple of steps between
drops; each of those places is compared, with its neighbours. A plateau's rate follows the test error: both counters see
the same histories, made up of everything that they tell apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import MODELS, RECIPES, SCHEDULES, TrainSettings
from alexnet_io.run import length
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import schedules as jax_schedules
from parity.alexnet import data_causes, rate_causes
from parity.alexnet.rate_causes import Place, Rates
from parity.bounds.magnitudes import Bound
from parity.causes.layer.parameters import Cause
from parity.reports.rows import Row, compare_arrays
from torch_ref import optim, resolved_settings
from torch_ref import schedules as torch_schedules

# Images of the training sets that the networks were made for: they say how many steps an epoch has.
IMAGENET, CIFAR = 1_281_167, 50_000

# What the command line may say of each schedule, beside the recipes' own: periods that divide nothing, a drop at the
# first step and one after the end.
OWN = "own schedule"
_FLAGS: dict[str, dict[str, Any]] = {
    "constant": {},
    "every_epochs": {"drop_every": 7, "drop_factor": 0.5},
    "every_steps": {"drop_every": 49_999, "drop_factor": 0.3},
    "at_epochs": {"drop_epochs": [0, 3, 4, 29, 90, 1_000_000], "drop_factor": 0.25},
    "plateau": {},
    "cosine": {},
}

# Patience, cooldown and factor of the plateaus that the command line may ask for, beside the recipes' own.
_PLATEAUS = tuple(product((0, 1, 3), (0, 1, 4), (0.1, 0.5)))
_EPOCHS = 160

# Of the angle, its cosine, and the products and sum around it, on either side; XLA's cosine and Python's differ.
_COSINE_ROUNDINGS = 12


@dataclass(frozen=True)
class Course:
    """Learning rates of one side or the other, and how to speak of them.

    Attributes:
        allowed: by how much they may differ: not at all, but for the rounding of a cosine.
        jax: one rate a place; likewise torch.
        torch: see `jax`.
        name: of the i-th place, in words.
        causes: looks for what makes them differ.
    """

    jax: NDArray
    torch: NDArray
    name: Callable[[int], str]
    causes: Callable[[], list[Cause]]
    allowed: float = 0.0

    @property
    def places(self) -> NDArray:
        """Where they differ by more."""
        return np.flatnonzero(~(np.abs(self.jax - self.torch) <= self.allowed))


def jax_rates(settings: CompleteSettings, where: Sequence[Place]) -> NDArray:
    """The rates that `jax_alexnet` trains the weights with, one a place."""
    shares = jax_schedules.shares(settings, steps_per_epoch(settings), [place.step for place in where])
    return np.array([jax_schedules.learning_rate(settings, place.epoch, place.step) for place in where]) * shares


def torch_rates(settings: CompleteSettings, where: Sequence[Place]) -> NDArray:
    """The rates that `torch_ref` trains the weights with, one a place."""
    per_epoch = steps_per_epoch(settings)
    schedule, warmup = resolved_settings.schedule_of(settings, per_epoch), length.warmup_steps(settings, per_epoch)
    found = []
    for place in where:
        rate = torch_schedules.learning_rate(schedule, settings.learning_rate, epoch=place.epoch, step=place.step)
        found.append(rate * torch_schedules.warmup_share(max(place.step, 0), warmup))  # mistakes go below the beginning
    return np.array(found)


def rows(jax: Rates = jax_rates, torch: Rates = torch_rates) -> list[Row]:
    """One row for each recipe and schedule, over all networks; exactly the same numbers, but for a cosine's rounding.

    Args:
        jax: JAX's rates at places; mutants replace them. Likewise torch, PyTorch's.
        torch: see `jax`.
    """
    counted: dict[Any, NDArray] = {}
    return [_row(recipe, schedule, jax, torch, counted) for recipe in RECIPES for schedule in (OWN, *SCHEDULES)]


def steps_per_epoch(settings: CompleteSettings) -> int:
    """Of the training set that the network was made for, the short last batch included."""
    images = CIFAR if settings.model.startswith(("cifar", "single")) else IMAGENET
    return -(-images // settings.batch_size)


def places(settings: CompleteSettings) -> list[Place]:
    """The steps at which the rate may change, their neighbours, the run's ends, and what comes one drop later."""
    per_epoch = steps_per_epoch(settings)
    last = settings.epochs + (settings.drop_period if settings.schedule == "every_epochs" else 1)
    changes = [epoch * per_epoch for epoch in range(last + 1)]
    if settings.schedule == "every_steps":
        every = settings.drop_period
        changes += range(0, settings.epochs * per_epoch + every + 1, every)
    steps = sorted({step for change in changes for step in (change - 1, change, change + 1) if step >= 0})
    return [Place(step // per_epoch, step) for step in steps]


def _row(recipe: str, schedule: str, jax: Rates, torch: Rates, counted: dict[Any, NDArray]) -> Row:
    row = Row("data", "learning rate", f"{recipe}, {schedule}", "learning rate", "float64", order=3, kind="schedule")
    found = {model: _sequence(model, recipe, schedule, jax, torch, counted) for model in MODELS}
    ours, theirs = (np.concatenate([getattr(each, side) for each in found.values()]) for side in ("jax", "torch"))
    allowed = np.concatenate([np.full(len(each.jax), each.allowed) for each in found.values()])
    compare_arrays(row, ours, theirs, Bound(_COSINE_ROUNDINGS, allowed) if allowed.any() else None)
    if not row.equal:
        model, first = next((m, s) for m, s in found.items() if len(s.places))
        i = int(first.places[0])
        row.index, row.jax, row.torch = (i,), float(first.jax[i]), float(first.torch[i])
        row.detail = f"first for {model}, {first.name(i)}"
        data_causes.attach(row, first.causes())
    return row


def _sequence(model: str, recipe: str, schedule: str, jax: Rates, torch: Rates, counted: dict[Any, NDArray]) -> Course:
    flags = {} if schedule == OWN else {"schedule": schedule, **_FLAGS[schedule]}
    ours, theirs = _resolved(model, recipe, flags)
    if "plateau" in (ours.schedule, theirs.schedule):
        return _plateaus(model, recipe, flags, counted)
    where = sorted({*places(ours), *places(theirs)})
    # The last number is the length of the run.
    sides = {"jax": (jax, ours), "torch": (torch, theirs)}
    rates = {
        side: np.array([*of_places(settings, where), float(settings.epochs)])
        for side, (of_places, settings) in sides.items()
    }

    def name(i: int) -> str:
        return f"epoch {where[i].epoch}, step {where[i].step}, from 0" if i < len(where) else "the number of epochs"

    causes = partial(rate_causes.of_time, sides, where, steps_per_epoch(ours), rates)
    cosine = _COSINE_ROUNDINGS * 2**-53 * ours.learning_rate if ours.schedule == "cosine" else 0.0
    return Course(rates["jax"], rates["torch"], name, causes, cosine)


def _resolved(model: str, recipe: str, flags: dict[str, Any]) -> tuple[CompleteSettings, CompleteSettings]:
    """The settings as each framework completes them."""
    asked = TrainSettings(model=model, recipe=recipe, data="synthetic", **flags)
    return jax_recipes.resolve(asked), resolved_settings.resolve(asked)


def _plateaus(model: str, recipe: str, flags: dict[str, Any], counted: dict[Any, NDArray]) -> Course:
    """Both counters on one history for each setting of the plateau; what was `counted` before isn't counted again."""
    asked: list[dict[str, Any]] = [flags]
    for patience, cooldown, factor in _PLATEAUS:
        chosen = {"plateau_patience": patience, "plateau_cooldown": cooldown, "drop_factor": factor}
        asked.append({"schedule": "plateau", **chosen})
    settings = [_resolved(model, recipe, each) for each in asked]
    rates: dict[str, list[NDArray]] = {"jax": [], "torch": []}
    for i, pair in enumerate(settings):
        for (side, found), count, each in zip(rates.items(), (_jax_counts, _torch_counts), pair, strict=True):
            # All that a plateau's rate depends on; the networks of a recipe share it.
            key = side, i, recipe, *rate_causes.rule_of(each).items()
            if key not in counted:
                counted[key] = count(each, history(i))
            found.append(counted[key])

    def name(i: int) -> str:
        s = settings[i // _EPOCHS][0]
        kind = f"patience {s.plateau_patience}, cooldown {s.plateau_cooldown}, factor {s.drop_factor:g}"
        return f"{kind}, epoch {i % _EPOCHS} of its history, from 0"

    def causes() -> list[Cause]:
        return rate_causes.of_plateaus(settings, [history(i) for i in range(len(settings))], rates)

    return Course(np.concatenate(rates["jax"]), np.concatenate(rates["torch"]), name, causes)


def history(number: int) -> NDArray:
    """A test error over epochs: standstill, progress at, below and above the threshold of 1e-4, setbacks, NaN."""
    rng = np.random.default_rng([6, number])
    best, errors = 1.0, []
    for _ in range(_EPOCHS):
        # Against the best so far: most are none, or too little; the counters must agree which.
        change = rng.choice([1.0, 1 + 1e-3, 3.0, 1 - 0.5e-4, 1 - 1e-4, 1 - 2e-4, 0.8, np.nan], p=_SHARES)
        errors.append(best * change)
        if errors[-1] < best * (1 - 1e-4):
            best = errors[-1]
    return np.array(errors)


_SHARES = (0.3, 0.25, 0.1, 0.1, 0.1, 0.07, 0.05, 0.03)


def _jax_counts(settings: CompleteSettings, errors: NDArray) -> NDArray:
    counter = jax_schedules.plateau_for(settings)
    rates = []
    for epoch, error in enumerate(errors):
        rates.append(jax_schedules.learning_rate(settings, epoch, epoch, counter))
        if counter is not None:
            counter.update(float(error))
    return np.array(rates)


def _torch_counts(settings: CompleteSettings, errors: NDArray) -> NDArray:
    # The first layer's parameters, by which `torch_ref` tells the rate.
    network = torch.nn.Sequential()
    network.add_module("conv1", torch.nn.Linear(1, 1))
    optimizer = optim.build_optimizer(network, settings)
    schedule = resolved_settings.schedule_of(settings)
    if not isinstance(schedule, torch_schedules.Plateau):
        return torch_rates(settings, [Place(epoch, epoch) for epoch in range(len(errors))])
    scheduler = torch_schedules.plateau(schedule, optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step was taken before the scheduler's
        for error in errors:
            rates.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.step(float(error))
            optim.set_learning_rate(optimizer, float(optimizer.param_groups[0]["lr"]))
    return np.array(rates)
