"""Trainings of an experiment by the training program itself: begun, gone on with, or found finished."""

import contextlib
import io
import json
import os
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.resumed_settings import of_resumed_run
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import open_for, parse_spec
from alexnet_io.data.sources.fingerprint import fingerprint
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.files import atomic_file
from alexnet_io.run.metrics import MetricsRow, read_metrics
from alexnet_io.run.run_description import DESCRIPTION, package_versions, read_description
from alexnet_io.run.signals import Signals
from jax_alexnet import evaluate
from jax_alexnet.recipes import resolve
from jax_alexnet.reproduce.settings import ReproduceSettings
from jax_alexnet.train_command import train

ENDED = "ended.json"  # in a run's directory, once the training program has come to the end of what was asked for
# How a run ends whose learning rate was too high; see `alexnet_io.run.loop`.
_DIVERGED = ("the loss became", "the weights are no longer finite")


class Stopped(Exception):
    """A signal ended a training, which was saved; `code` is what the training program returned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


@dataclass(frozen=True)
class Trained:
    """A training at the end of what was asked for.

    Attributes:
        path: its run's directory.
        settings: which it was trained with.
        rows: its metrics.
        diverged: whether it ended because its loss or weights were no longer finite.
    """

    path: Path
    settings: CompleteSettings
    rows: list[MetricsRow]
    diverged: bool = False


class Runner:
    """Runs the trainings and evaluations of experiments, with the data, devices and precision of the command.

    Args:
        settings: the command's.
        given: those that the command line has.
        folder: where the runs lie.
    """

    def __init__(self, settings: ReproduceSettings, given: Mapping[str, Any], folder: Path) -> None:
        self.settings, self.given, self.folder = settings, dict(given), folder
        self.spec = parse_spec(settings.data)
        self.class_names: list[str] = []  # of the last training
        self._identities: dict[tuple[Any, ...], dict[str, Any]] = {}

    @property
    def on_imagenet(self) -> bool:
        """Whether the paper's own network and data are meant."""
        return self.spec.kind == "imagenet"

    @property
    def subject(self) -> str:
        """The data, short enough for a table and for a folder's name."""
        place = Path(self.spec.argument).name if self.spec.kind in ("folder", "imagenet") else self.spec.argument
        return f"{self.spec.kind}:{place}" if place else self.spec.kind

    def seeds(self, usual: int) -> range:
        """The seeds to repeat an experiment with."""
        return range(1 if self.settings.quick else self.settings.seeds or usual)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def train(self, name: str, words: Mapping[str, Any], *, may_diverge: bool = False) -> Trained:
        """Train as the command line would with these settings, or go on with the run of that name, or read it.

        Args:
            name: of the run, below the data's.
            words: settings of training; the rest are the command's, or the network's own.
            may_diverge: a run whose loss or weights are no longer finite is no error, but ends as one of its kind.

        Raises:
            UserError: settings that can't be had, or other ones than the run was begun with.
            Stopped: by a signal.
        """
        directory = self.folder / "runs" / _as_file(self.subject) / name
        given = {**self._of_command(), **words, "output": directory}
        begun = (directory / DESCRIPTION).exists()
        settings = TrainSettings(**given)
        if begun:
            given["resume"] = True
            settings = self._begun(directory, replace(settings, resume=True), given)
        complete = resolve(settings)
        if begun:
            self._refuse_other_data(directory, complete)
        ended = self._ended(directory) if begun else None
        if ended is None or (not ended["diverged"] and _beyond(complete, ended)):
            self.say(f"\n--- {name}: {'going on' if begun else 'training'}; {_shown(complete)}")
            ended = self._trained(complete, directory, may_diverge)
        else:
            self.say(f"--- {name}: found finished")
        self.class_names = list(read_description(directory)["class_names"])
        return Trained(directory, complete, read_metrics(directory), ended["diverged"])

    def evaluate(self, run: Path, crops: int, checkpoint: str = "newest") -> dict[str, Any]:
        """What `python -m jax_alexnet.evaluate` reports of a run."""
        words = ["--run", str(run), "--crops", str(crops), "--checkpoint", checkpoint]
        words += ["--devices", self.settings.devices]
        names = ("data", "data_dir", "cache_dir", "holdout")
        for name in names:
            if name in self.given:
                words += [f"--{name.replace('_', '-')}", str(self.given[name])]
        with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
            file = Path(folder) / "report.json"
            self.say(f"--- evaluating {printable(run.name)} on {crops} crop{'s' if crops > 1 else ''}")
            with contextlib.redirect_stdout(io.StringIO()):
                evaluate.main([*words, "--json", str(file)])
            return json.loads(file.read_bytes())

    def about(self) -> dict[str, Any]:
        """When, with which command, on what."""
        versions = package_versions()
        devices = jax.devices()
        return {
            "command": shlex.join(["python", "-m", "jax_alexnet.reproduce", *map(str, sys.argv[1:])]),
            "when": time.strftime("%Y-%m-%d %H:%M"),
            "on": f"{len(devices)} {devices[0].device_kind} device(s), {os.cpu_count()} cores, {platform.machine()}",
            **{name: versions[name] for name in ("python", "jax", "flax", "numpy") if name in versions},
        }

    def _of_command(self) -> dict[str, Any]:
        names = ("data", "data_dir", "cache_dir", "holdout", "download", "devices", "precision")
        return {name: getattr(self.settings, name) for name in names}

    @staticmethod
    def _begun(directory: Path, settings: TrainSettings, given: dict[str, Any]) -> TrainSettings:
        """The settings of a run that is there.

        Raises:
            UserError: it was begun with others, as by another `--epochs` of this command.
        """
        try:
            return of_resumed_run(settings, given, "jax_alexnet")
        except UserError as error:
            said = str(error).removeprefix("--resume can't change ").partition(". Leave these flags out")[0]
            raise UserError(
                f"{printable(directory)} was begun with other settings: {said}; repeat the command that began it, or "
                "pass another --output"
            ) from None

    def picture(self, name: str) -> str:
        """A file's name for an experiment's picture; of other data it has another one, as in the table."""
        return f"{name}-{_as_file(self.subject)}.png"

    def _refuse_other_data(self, directory: Path, settings: CompleteSettings) -> None:
        """Refuse to go on with a run, or to find it finished, that was trained on other pictures than are given now.

        Raises:
            UserError: as said, or there are no such data.
        """
        keys = (settings.data, settings.data_dir, settings.holdout, settings.validation, settings.stored_size)
        if keys not in self._identities:
            self._identities[keys] = fingerprint(open_for(settings))
        saved = read_description(directory).get("data")
        if saved is not None and saved != self._identities[keys]:
            raise UserError(
                f"{printable(directory)} was trained on other data than {printable(settings.data)} has now: pass that "
                f"run's --data ({printable(str(read_description(directory)['settings'].get('data')))} then), or "
                "another --output"
            )

    def _trained(self, settings: CompleteSettings, directory: Path, may_diverge: bool) -> dict[str, Any]:
        """Train to the end; what is left about that in the run's directory."""
        diverged = False
        try:
            Signals.last = 0
            code = train(settings)
        except FailedRun as error:
            if not (may_diverge and str(error).startswith(_DIVERGED)):
                raise
            self.say(f"diverged: {error}")
            code, diverged = 0, True
        if code:
            raise Stopped(code)
        ended = {"epochs": settings.epochs, "steps": settings.steps, "diverged": diverged}
        atomic_file.write_json(directory / ENDED, ended)
        if Signals.last:  # after this run's last step, which it ended by; the next one isn't begun
            raise Stopped(128 + Signals.last)
        return ended

    @staticmethod
    def _ended(directory: Path) -> dict[str, Any] | None:
        """Up to where a run was trained, if the training program came to its end; None if it must be asked."""
        try:
            found = json.loads((directory / ENDED).read_bytes())
            return {name: found[name] for name in ("epochs", "steps", "diverged")}
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _as_file(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words)


def _beyond(settings: CompleteSettings, ended: Mapping[str, Any]) -> bool:
    """Whether more is asked for than there is; the training program itself knows whether that is a step."""
    return settings.epochs > ended["epochs"] or settings.steps != ended["steps"]


def _shown(settings: CompleteSettings) -> str:
    changed = f" --ablate {settings.ablate}" if settings.ablate else ""
    end = f"{settings.steps} steps" if settings.steps else f"{settings.epochs} epochs"
    return (
        f"--model {settings.model}{changed}, seed {settings.seed}, learning rate {settings.learning_rate:g}, to {end}"
    )
