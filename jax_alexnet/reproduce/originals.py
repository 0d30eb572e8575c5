"""The recipes as they were published: cuda-convnet's CIFAR-10 networks, and the notebook."""

import math
from pathlib import Path
from typing import Any

from alexnet_io.run.crops import OF_NINE
from alexnet_io.run.progress import duration
from jax_alexnet.reproduce import pictures
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.reading import Spread, of_split, seconds_until
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.running import Runner, Trained

PUBLISHED_ERRORS = {"cifar-80sec": 26.0, "cifar-18pct": 18.0, "cifar-13pct": 13.0, "cifar-11pct": 11.0}  # per cent
FIRST_LOSS, BEST_LOSS = 0.972, 0.700  # the notebook's validation losses, after epoch 1 and at best [SD]
# Epochs and drops of the recipes; drops move with the end where another number of epochs is trained.
_SCHEDULES = {
    "cifar-80sec": (10, (8,)),
    "cifar-18pct": (140, (120, 130)),
    "cifar-13pct": (470, (450, 460)),
    "cifar-11pct": (470, (450, 460)),
}
_QUICK_STEPS = 150


def perform_cifar(name: str, runner: Runner, folder: Path) -> Result:
    """A CIFAR network by its own recipe, measured at the end on the views of its source."""
    model = name.replace("-", "_")
    crops = 9 if model in OF_NINE else 1
    runs: list[Trained] = []
    rows: list[list[str]] = []
    errors: list[float] = []
    for seed in runner.seeds(EXPERIMENTS[name].seeds):
        words = {"model": model, "recipe": "cifar", "seed": seed, **_length(name, runner)}
        run = runner.train(f"{name}/seed{seed}", words)
        report = runner.evaluate(run.path, crops)
        seconds = seconds_until(run.rows, math.inf, run.settings.batch_size)
        errors.append(100 * (1 - report["top1"]))
        last = of_split(run.rows, "test")[-1]
        rows.append([str(seed), f"{100 * (1 - last.accuracy):.2f}", f"{errors[-1]:.2f}", duration(seconds)])
        runs.append(run)
    picture, published = runner.picture(name), PUBLISHED_ERRORS[name]
    lines = {f"seed {seed}": run.rows for seed, run in enumerate(runs)}
    pictures.draw_errors(folder / picture, lines, published / 100, f"{model}, its own recipe")
    views = "nine crops" if crops == 9 else "the whole picture"
    return Result(
        name,
        runner.subject,
        f"{Spread.of(errors).text()}% on {views}, trained in {rows[0][-1]}",
        len(errors),
        ["seed", "test error %, central crop", f"test error %, {views}", "time to train"],
        rows,
        [
            "errors of the last weights; the learning rate drops at the epochs of the recipe, whatever the images say",
            "the time is of training alone, without compiling and evaluating",
        ],
        [picture],
        {"errors": errors, "published": published},
        runner.about(),
    )


def _length(name: str, runner: Runner) -> dict[str, Any]:
    if runner.settings.quick:
        return {"steps": _QUICK_STEPS}
    own, drops = _SCHEDULES[name]
    epochs = runner.settings.epochs or EXPERIMENTS[name].epochs
    if epochs == own:
        return {}
    return {"epochs": epochs, "drop_epochs": [round(drop * epochs / own) for drop in drops]}


# --- the notebook -----------------------------------------------------------------------------------------


def perform_notebook(runner: Runner, folder: Path) -> Result:
    """The notebook's network by the notebook's recipe, and by the paper's."""
    recipes: dict[str, dict[str, Any]] = {"blog": {}, "paper": {}}
    if runner.settings.quick:
        recipes = {"blog": {"steps": 60, "image_size": 67}, "paper": {"steps": 4, "image_size": 67}}
    elif runner.settings.epochs is not None:
        recipes = {name: {"epochs": runner.settings.epochs} for name in recipes}
    seeds = runner.seeds(EXPERIMENTS["notebook"].seeds)
    runs = {
        name: [
            runner.train(
                f"notebook/{name}-seed{seed}", {"model": "single_column", "recipe": name, "seed": seed, **words}
            )
            for seed in seeds
        ]
        for name, words in recipes.items()
    }
    pictures.draw_losses(
        folder / runner.picture("notebook"), {name: runs[name][0].rows for name in runs}, FIRST_LOSS, BEST_LOSS
    )
    rows = [
        [name, str(seed), f"{first:.3f}", f"{best:.3f}", f"{epoch:g}", f"{run.settings.epochs}"]
        for name, several in runs.items()
        for seed, run in enumerate(several)
        for first, best, epoch in (losses(run),)
    ]
    found = {name: [losses(run)[:2] for run in several] for name, several in runs.items()}
    told = [
        f"{name}: {Spread.of([each[0] for each in pairs]).text('{:.3f}')} first, "
        f"{Spread.of([each[1] for each in pairs]).text('{:.3f}')} at best"
        for name, pairs in found.items()
    ]
    notes = [
        "losses on the test images, which also say when the paper's recipe lowers its learning rate and which is the "
        "best: the notebook chose by its validation images alike",
    ]
    if runner.settings.quick:
        notes.append("at 67 pixels for the look; the experiment itself is at 227")
    return Result(
        "notebook",
        runner.subject,
        "; ".join(told),
        len(seeds),
        ["recipe", "seed", "test loss, first", "test loss, best", "at epoch", "of epochs"],
        rows,
        notes,
        [runner.picture("notebook")],
        {"losses": found, "published": [FIRST_LOSS, BEST_LOSS]},
        runner.about(),
    )


def losses(run: Trained) -> tuple[float, float, float]:
    """Loss on the test images at the first evaluation, the lowest one, and its epoch."""
    test = of_split(run.rows, "test")
    best = min(test, key=lambda row: row.loss)
    return test[0].loss, best.loss, best.epoch
