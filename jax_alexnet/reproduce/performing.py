"""From an experiment's name to what it found, in the table, the pictures and the page."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import on_the_way
from alexnet_io.files import atomic_file
from jax_alexnet.reproduce import figure1, looking, originals, page, results, studies
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.running import Runner, Stopped
from jax_alexnet.reproduce.settings import ReproduceSettings

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
QUICK = "quick"  # below --output: looks, which are never mixed with results

PERFORMERS: dict[str, Callable[[Runner, Path], Result]] = {
    "relu-vs-tanh": figure1.perform,
    **{name: partial(studies.perform, name) for name in studies.ON_CIFAR},
    "filters": looking.perform_filters,
    "neighbours": looking.perform_neighbours,
    "ten-crop": looking.perform_crops,
    **{name: partial(originals.perform_cifar, name) for name in originals.PUBLISHED_ERRORS},
    "notebook": originals.perform_notebook,
}


def perform(settings: ReproduceSettings, given: Mapping[str, Any]) -> int:
    """Perform the experiments in turn, each merged into the table as it is done; returns the exit code.

    Raises:
        UserError: settings, data or a run that can't be used; a FailedRun on the way.
    """
    folder = settings.output.expanduser() / (QUICK if settings.quick else "")
    results.read(folder)  # refused before anything is trained
    with atomic_file.naming_the_path("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    runner = Runner(settings, given, folder)
    for number, name in enumerate(settings.experiments, start=1):
        runner.say(f"{name} ({number} of {len(settings.experiments)})")
        try:
            result = PERFORMERS[name](runner, folder)
        except Stopped as stopped:
            runner.say(f"{stopped}; the same command goes on")
            return stopped.code
        if other := of_other_pictures(runner):
            runner.say(f"note: {other}")
            result.notes.insert(0, other)
        with on_the_way():
            every = results.merge(folder, result)
            where = page.write(folder, every, settings.quick)
        runner.say(f"\n{name}: {result.measured}\npublished: {EXPERIMENTS[name].published}\n")
        runner.say(f"{printable(where)} and {printable(folder / results.TABLE)} have it beside the others")
    return 0


def of_other_pictures(runner: Runner) -> str | None:
    """What is to be said where trainings had other classes than CIFAR-10's; None where they had these, or none ran."""
    if runner.on_imagenet or not runner.class_names or sorted(runner.class_names) == sorted(CIFAR10):
        return None
    return f"{runner.subject} isn't CIFAR-10: the published figure is of other pictures, and says nothing of these"
