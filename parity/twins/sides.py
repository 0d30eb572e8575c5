"""Starts each training program as its command does, watched, and collects what it leaves."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_io.command_line.complete_settings import CompleteSettings, plain
from alexnet_io.command_line.resumed_settings import planned, resumed
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.files import tensor_file
from alexnet_io.run.metrics import read_metrics
from alexnet_io.run.run_description import read_description
from alexnet_io.run.signals import Signals
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import train_command as jax_training
from jax_alexnet.files import checkpoint as jax_checkpoint
from parity.alexnet.parameter_names import ParameterNames
from parity.reference.torch_tensors import to_numpy
from parity.twins.engines import Fate, JaxPrograms, Killed, watched_jax, watched_torch
from parity.twins.records import Arrays, Record, part_of
from torch_ref import alexnet
from torch_ref import checkpoint as torch_checkpoint
from torch_ref import resolved_settings as torch_settings
from torch_ref import train_command as torch_training
from torch_ref.engine import WEIGHTS


def run_jax(settings: TrainSettings, programs: JaxPrograms, fate: Fate | None = None) -> Record:
    """JAX's program on settings as a user gives them; `--resume` goes on with the run in `output`."""
    record = Record("jax_alexnet")
    completed = _completed(settings, jax_recipes.resolve)
    record.settings = plain(completed)
    engine = watched_jax(record, programs, fate or Fate())
    _run(record, lambda: jax_training.train(completed, engine))
    _collect(record, completed, _kept_by_jax)
    return record


def run_torch(settings: TrainSettings, first_parameters: Arrays, fate: Fate | None = None) -> Record:
    """PyTorch's program, which begins with the weights that JAX's began with."""
    record = Record("torch_ref")
    completed = _completed(settings, torch_settings.resolve)
    record.settings = plain(completed)
    engine = watched_torch(record, first_parameters, fate or Fate())
    _run(record, lambda: torch_training.train(completed, engine))
    _collect(record, completed, _kept_by_torch)
    return record


def _completed(settings: TrainSettings, resolve: Callable[[TrainSettings], CompleteSettings]) -> CompleteSettings:
    """As the command completes them: a run that goes on has its own."""
    if settings.resume and settings.output is not None:
        saved = planned(read_description(settings.output))
        settings = resumed(saved, {"resume": True, "output": settings.output})
    return resolve(settings)


def _run(record: Record, train: Callable[[], int]) -> None:
    said = io.StringIO()
    Signals.last = 0
    x64 = jax.config.read("jax_enable_x64")
    with contextlib.redirect_stdout(said), contextlib.suppress(Killed):
        record.code = train()
    jax.config.update("jax_enable_x64", x64)
    record.said = said.getvalue()
    if Signals.last:
        # It was meant for the comparison: a run that it has cut short would only differ.
        print(f"stopped by signal {Signals.last}: nothing is said of what was under way", file=sys.stderr)
        raise SystemExit(128 + Signals.last)


def _collect(record: Record, settings: CompleteSettings, kept: Callable[[Path, CompleteSettings, Record], Any]) -> None:
    if settings.output is None:
        return
    record.rows = [replace(row, images_per_second=None) for row in read_metrics(settings.output)]
    kept(settings.output, settings, record)


def _kept_by_jax(run: Path, settings: CompleteSettings, record: Record) -> None:
    classes, size = len(read_description(run)["class_names"]), settings.image_size
    names = ParameterNames(alexnet.build(settings.model, classes, image_size=size), (size, size))
    for which, place in (("newest", run / "checkpoints"), ("best", run / "best")):
        found = jax_checkpoint.restore_newest(place, {"params": record.template}, partial=True, read_only=True)
        if found is not None:
            arrays = names.as_torch(jax.tree.map(np.asarray, found.state["params"]))
            record.kept[which], record.kept_steps[which] = part_of(arrays), found.step


def _kept_by_torch(run: Path, settings: CompleteSettings, record: Record) -> None:
    newest = torch_checkpoint.load_newest(run / "checkpoints")
    if newest is not None:
        arrays = {name: to_numpy(value) for name, value in newest["state_dict"].items()}
        record.kept["newest"], record.kept_steps["newest"] = part_of(arrays), newest["step"]
    if (run / WEIGHTS).exists():
        arrays, facts = tensor_file.read(run / WEIGHTS)
        record.kept["best"], record.kept_steps["best"] = part_of(arrays), int(facts["step"])
