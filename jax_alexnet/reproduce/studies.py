"""Ablations: the whole network against one without a part, everything else alike, over several seeds.

On CIFAR-10 they are of the CIFAR networks, trained for a shorter time than their recipes say so that three seeds of
both fit into hours; on ImageNet of the paper's network by the paper's recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_alexnet.reproduce import pictures
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.reading import Spread, last_errors
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.running import Runner, Trained

Words = Mapping[str, Any]
# As the 40-epoch run of docs/results.md: the two drops at 34 and 37 of 40.
DROPS = (0.85, 0.925)
QUICK_STEPS = {"dropout": 30}
_MOST_QUICK_STEPS = 100


@dataclass(frozen=True)
class Study:
    """One ablation: settings of all trainings, and by arm those that differ, the whole network first."""

    common: Words
    arms: Mapping[str, Words]


def _cifar(model: str) -> Words:
    return {"model": model, "recipe": "cifar", "schedule": "at_epochs"}


ON_CIFAR = {
    "lrn": Study(_cifar("cifar_11pct"), {"with normalisation": {}, "without": {"ablate": "no-lrn"}}),
    "pooling": Study(_cifar("cifar_13pct"), {"overlapping": {}, "windows that touch": {"ablate": "no-overlap"}}),
    # The CIFAR networks have no dropout. The smallest images that single_column takes, and batches that two cores like.
    "dropout": Study(
        {"model": "single_column", "recipe": "blog", "image_size": 67, "batch_size": 32, "learning_rate": 1e-4},
        {"with dropout": {"dropout": 0.5}, "without": {"dropout": 0.0}},
    ),
    "augmentation": Study(
        {**_cifar("cifar_13pct"), "stored_size": 32},
        {"crops and mirror images": {}, "the central crop": {"crop": False, "flip": False}},
    ),
    "columns": Study(
        _cifar("cifar_18pct"), {"two columns": {"ablate": "two-columns"}, "one of half": {"ablate": "one-column"}}
    ),
}
_PAPER: Words = {"model": "two_column", "recipe": "paper"}
ON_IMAGENET = {
    "lrn": Study(_PAPER, {"with normalisation": {}, "without": {"ablate": "no-lrn"}}),
    "pooling": Study(_PAPER, {"overlapping": {}, "windows that touch": {"ablate": "no-overlap"}}),
    "dropout": Study(_PAPER, {"with dropout": {"dropout": 0.5}, "without": {"dropout": 0.0}}),
    "augmentation": Study(
        {**_PAPER, "stored_size": 256},
        {
            "crops, mirror images, colour noise": {},
            "without colour noise": {"color_noise": False},
            "the central crop": {"crop": False, "flip": False, "color_noise": False},
        },
    ),
    "columns": Study(_PAPER, {"two columns": {}, "one of half": {"ablate": "one-column"}}),
}


def perform(name: str, runner: Runner, folder: Path) -> Result:
    """Train every arm with every seed, and compare them at the end of training."""
    study = (ON_IMAGENET if runner.on_imagenet else ON_CIFAR)[name]
    found: dict[str, list[Trained]] = {arm: [] for arm in study.arms}
    for seed in runner.seeds(EXPERIMENTS[name].seeds):
        for arm, words in study.arms.items():
            run = f"{name}/{arm.replace(' ', '-').replace(',', '')}-seed{seed}"
            settings = {**study.common, **length(name, runner, study), **words, "seed": seed}
            found[arm].append(runner.train(run, settings, may_diverge=True))
    picture = runner.picture(name)
    pictures.draw_study(folder / picture, {arm: [each.rows for each in runs] for arm, runs in found.items()}, name)
    return _result(name, runner, found, picture)


def length(name: str, runner: Runner, study: Study) -> dict[str, Any]:
    """How long to train, and when the learning rate drops."""
    if runner.settings.quick:
        return {"epochs": 1, "steps": QUICK_STEPS.get(name, _MOST_QUICK_STEPS)} | _drops(study, 1)
    if runner.on_imagenet:
        return {} if runner.settings.epochs is None else {"epochs": runner.settings.epochs}
    epochs = runner.settings.epochs or EXPERIMENTS[name].epochs
    return {"epochs": epochs} | _drops(study, epochs)


def _drops(study: Study, epochs: int) -> dict[str, Any]:
    if study.common.get("schedule") != "at_epochs":
        return {}
    return {"drop_epochs": [round(share * epochs) for share in DROPS]}


def paired(whole: Sequence[float | None], other: Sequence[float | None]) -> list[float]:
    """What the part is worth, seed by seed: the other's errors less the whole network's; None for what diverged."""
    return [b - a for a, b in zip(whole, other, strict=True) if a is not None and b is not None]


def _result(name: str, runner: Runner, found: dict[str, list[Trained]], picture: str) -> Result:
    of_seeds = {
        arm: [None if each.diverged else last_errors(each.rows) for each in runs] for arm, runs in found.items()
    }
    errors = {arm: [each for each in several if each is not None] for arm, several in of_seeds.items()}
    top1 = {arm: [100 * each[1] for each in several] for arm, several in errors.items()}
    top5 = {arm: [100 * each[2] for each in several if each[2] is not None] for arm, several in errors.items()}
    training = {arm: [100 * each[0] for each in several] for arm, several in errors.items()}
    rows = [
        [arm, _cell(training[arm]), _cell(top1[arm]), _cell(top5[arm]), _range(top1[arm]), str(len(top1[arm]))]
        for arm in found
    ]
    whole, *others = found
    by_seed = {arm: [None if each is None else 100 * each[1] for each in several] for arm, several in of_seeds.items()}
    gains = {arm: paired(by_seed[whole], by_seed[arm]) for arm in others}
    told = [
        f"{whole} {_cell(top1[whole])}%",
        *(f"{arm} {_cell(top1[arm])}%" + (f" ({_signed(gains[arm])} points)" if gains[arm] else "") for arm in others),
    ]
    notes = ["errors at the end of training, of the last weights, on the central crop, which no image has chosen"]
    if found[whole][0].settings.schedule == "plateau":
        notes.append("the test images say when the learning rate falls, and so flatter all of them alike")
    notes += [
        f"{arm}: {len(found[arm]) - len(top1[arm])} diverged" for arm in found if len(top1[arm]) < len(found[arm])
    ]
    some = found[whole][0].settings
    end = f"{some.steps} steps" if some.steps else f"{some.epochs} epochs"
    notes.append(f"{some.model} at {some.image_size} pixels, recipe {some.recipe}, {end}, batches of {some.batch_size}")
    return Result(
        name,
        runner.subject,
        "; ".join(told),
        min(map(len, top1.values())),
        ["", "training error %", "test error %", "test top-5 error %", "test error, lowest to highest", "n"],
        rows,
        notes,
        [picture],
        {"test_errors": top1, "test_top5_errors": top5, "differences": gains},
        runner.about(),
    )


def _cell(values: Sequence[float]) -> str:
    return Spread.of(values).text() if values else "none"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else ""


def _signed(values: Sequence[float]) -> str:
    spread = Spread.of(values)
    return f"{spread.mean:+.2f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.2f}")
