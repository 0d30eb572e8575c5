"""Which runs are twinned: recipes, schedules, and the circumstances under which bookkeeping goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_io.command_line.train_settings import SCHEDULES, TrainSettings
from alexnet_io.files import tensor_file
from parity.alexnet.trajectory import RATES, SMALL_SIZES
from parity.settings import RECIPES
from torch_ref.alexnet import build

# Eight images a step, 22 in all: a short last batch. 133 test images: a short last batch of 128. Ten classes: five
# guesses are not all. Two epochs and two steps of the third: an end in the middle.
DATA = "synthetic:classes=10,train=22,test=133"
BATCH, EPOCHS, STEPS = 8, 4, 8

# What makes each schedule drop within so few steps, and at other steps than the others.
SCHEDULE_SETTINGS: dict[str, dict[str, Any]] = {
    "constant": {},
    "every_epochs": {"drop_every": 1, "drop_factor": 0.5},
    "every_steps": {"drop_every": 4, "drop_factor": 0.1},
    "at_epochs": {"drop_epochs": [1, 2], "drop_factor": 0.25},
    "plateau": {"plateau_patience": 0, "plateau_cooldown": 0, "drop_factor": 0.5},
    "cosine": {"warmup_steps": 2},
}
# A plateau needs many epochs: of one step. Fewer test images tie more often, which is what makes a plateau.
# At this rate the accuracy rises, falls and stays, so that a best is chosen several times.
PLATEAU_DATA, PLATEAU_STEPS, PLATEAU_RATE = "synthetic:classes=10,train=8,test=21", 8, 0.03

# A rising rate, smoothed labels, gradients that are shorter and longer than the limit, a batch in parts, and an average
# that is far from the weights.
REFINEMENTS: dict[str, Any] = {
    "warmup_epochs": 0.5,
    "warmup_steps": None,
    "label_smoothing": 0.1,
    "clip_norm": 1.4,
    "accumulate": 2,
    "ema": 0.8,
}


@dataclass(frozen=True)
class Case:
    """One run, twice.

    Attributes:
        name: recipe and schedule.
        settings: what a user would give on the command line; `output` is set for each run.
    """

    name: str
    settings: TrainSettings

    def at(self, output: Path, **changes: Any) -> TrainSettings:
        """The settings of a run in that directory."""
        return replace(self.settings, output=output, **changes)


def choose(
    model: str, recipe: str, schedule: str | None, data: str | None, seed: int, cache: Path, image_size: int | None
) -> list[Case]:
    """The cases that the command line asks for.

    Every recipe is run, with a schedule of its own each, so that all schedules are run, too; a schedule that is named
    is run with every recipe.

    Args:
        model: the network.
        recipe: one of `RECIPES`, or all.
        schedule: one of `SCHEDULES`, all, or None: a different one for each recipe.
        data: see `--data`; made-up images if None.
        seed: of weights, order and draws.
        cache: where decoded images are kept.
        image_size: of the network's input; the smallest that suits it if None.
    """
    recipes = list(RECIPES) if recipe == "all" else [recipe]
    rotated: dict[str, str] = dict(
        zip(RECIPES, ("every_steps", "plateau", "every_epochs", "at_epochs", "constant"), strict=True)
    )
    found = []
    for one in recipes:
        schedules = [rotated[one]] if schedule is None else list(SCHEDULES) if schedule == "all" else [schedule]
        for rule in schedules:
            plateau = rule == "plateau" and data is None
            settings = TrainSettings(
                model=model,
                recipe=one,
                data=data or (PLATEAU_DATA if plateau else DATA),
                image_size=image_size or SMALL_SIZES.get(model),
                epochs=STEPS if plateau else EPOCHS,
                steps=PLATEAU_STEPS if plateau else STEPS,
                batch_size=BATCH,
                learning_rate=PLATEAU_RATE if plateau else RATES[one],
                schedule=rule,
                crop=True,
                flip=True,
                color_noise=True,
                log_every=2,
                precision="float64",
                devices="1",
                seed=seed,
                cache_dir=cache,
                **SCHEDULE_SETTINGS[rule],
            )
            found.append(Case(f"{one}, {rule}", settings))
    return found


def validating(case: Case, share: float = 0.3) -> Case:
    """The same run, steered by a share of its training images."""
    return Case(f"{case.name}, validation", replace(case.settings, validation=share))


def refined(case: Case) -> Case:
    """The same run with all that a step can do besides."""
    return Case(f"{case.name}, refined", replace(case.settings, **REFINEMENTS))


def fine_tuning(case: Case, weights: Path) -> Case:
    """The same run from another's weights: a new last layer, and a first one that stays.

    The other has a single class, which no data set has.

    Args:
        case: of `choose`.
        weights: where a file for it is written; with made-up weights, so that neither side has a part in them.
    """
    settings = case.settings
    with torch.device("meta"):
        network = build(settings.model, 1, settings.image_size)
    drawn = np.random.default_rng(settings.seed)
    arrays = {name: drawn.normal(0, 0.03, tuple(shape.shape)) for name, shape in network.named_parameters()}
    stated = {"model": settings.model, "image_size": settings.image_size or network.image_size[0], "home": "torch_ref"}
    tensor_file.write(weights, arrays, stated)
    first = next(iter(arrays)).partition(".")[0]
    changed = replace(settings, init_from=str(weights), freeze=first, new_layer_learning_rate_factor=3.0)
    return Case(f"{case.name}, fine-tuning", changed)
