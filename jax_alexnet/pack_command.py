"""A run's weights written with a card of what they are worth: what `python -m jax_alexnet.pack` does."""

import hashlib
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_io.command_line import repeating
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import PROTOCOLS, EvaluateSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources.specs import KINDS, parse_spec
from alexnet_io.errors import UserError, on_the_way
from alexnet_io.files import atomic_file
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.metrics import read_metrics
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.run.run_description import read_description
from alexnet_io.weights import card as cards
from alexnet_io.weights import shipped
from alexnet_io.weights.card import Card
from jax_alexnet.evaluate_command import measured
from jax_alexnet.files import weight_homes
from jax_alexnet.files.exported import load_weights, say_fallback
from jax_alexnet.files.finished_run import TrainedNetwork, load_run, saved_settings
from jax_alexnet.pack_settings import PROGRAM, PackSettings
from jax_alexnet.recipes import resolve

# What says where and how a run was made, and nothing of what it learnt.
_OF_THE_PLACE = (
    "data", "data_dir", "cache_dir", "download", "output", "resume", "strict_resume", "changed_data", "devices",
    "parallel", "group_size", "coordinator", "num_processes", "process_id", "checkpoint_seconds", "log_every",
    "max_bad_images", "tensorboard", "profile", "dry_run", "print_config", "cpu_convolution",
)  # fmt: skip


def pack(settings: PackSettings) -> tuple[Card, str]:
    """Write the weights and their card; returns the card and the name.

    Raises:
        UserError: no run there, or a name that can't be one.
        FailedRun: they can't be measured or written.
    """
    saved = saved_settings(settings.run or Path())
    name = settings.name or saved.model
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"--name {printable(name)}: names have small letters, digits and underscores only")
    with on_the_way():
        return _pack(settings, saved, name), name


def _pack(settings: PackSettings, saved: CompleteSettings, name: str) -> Card:
    """Write the weights, measure them as they will be read, and put them in place with their card."""
    network = load_run(settings.run or Path(), which=settings.checkpoint, devices=jax.devices()[:1])
    say_fallback(network, settings.checkpoint)
    facts = NetworkFacts.of(network.settings, network.class_names, network.statistics, network.step)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), network.params)
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        file = Path(folder) / f"{name}{shipped.ENDING}"
        weight_homes.save(file, params, saved.model, facts.image_size, "torch_ref", facts)
        packed = load_weights(file, devices="1", precision=saved.precision)
        report = measured(packed, saved, EvaluateSettings(crops=settings.crops, devices="1"))
        card = _card(settings, saved, name, network, report)
        weight_homes.save(file, params, saved.model, facts.image_size, "torch_ref", facts, {cards.KEY: card.to_text()})
        content = file.read_bytes()
    markdown = card.to_markdown(len(content), hashlib.sha256(content).hexdigest()).encode()
    ours = [f"{name}{ending}" for ending in (shipped.ENDING, shipped.CARD_ENDING)]
    others = sum(path.stat().st_size for path in settings.into.iterdir() if path.is_file() and path.name not in ours)
    if (total := others + len(content) + len(markdown)) > shipped.MOST_BYTES:
        raise UserError(
            f"{printable(settings.into)} would hold {total:,} bytes, and all weights together may have "
            f"{shipped.MOST_BYTES:,}: take others away, or leave these out; nothing was written"
        )
    for file_name, what in zip(ours, (content, markdown), strict=True):
        atomic_file.write_bytes(settings.into / file_name, what, flag="--into")
    return card


def _card(
    settings: PackSettings,
    saved: CompleteSettings,
    name: str,
    network: TrainedNetwork,
    report: EvaluationReport,
) -> Card:
    run = settings.run or Path()
    description, rows = read_description(run), read_metrics(run)
    trained_by, place = description.get("framework", "jax_alexnet"), _place(saved.data)
    steering = "validation" if saved.validation else "test"
    chosen_by = f"the {steering} images: the best of the epochs that were evaluated"
    if network.which != "best":
        chosen_by = "nothing: they are the newest"
    crops = f" --crops {settings.crops}" if settings.crops != 1 else ""
    again = [*_words(settings, name), "--data-is", settings.data_is or ""]
    return Card(
        name=name,
        model=saved.model,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(network.params)),
        classes=network.class_names,
        input=f"{saved.image_size} pixels of {saved.stored_size}, --normalize {saved.normalize}",
        data=settings.data_is or "",
        training_images=int(description["data"]["train"]["examples"]),
        command=f"python -m {trained_by}.train {shlex.join(_flags(saved))}",
        recipe={key: value for key, value in _deciding(saved).items() if value is not None},
        seed=saved.seed,
        epochs=_epoch_of(rows, network.step),
        planned_epochs=saved.epochs,
        reached_epoch=round(max(row.epoch for row in rows), 2),
        step=network.step,
        chosen_by=chosen_by,
        measured_on="test images",
        examples=report.examples,
        protocol=PROTOCOLS[settings.crops],
        top1_error=round(100 * (1 - report.top1), 2),
        top5_error=round(100 * (1 - report.top5), 2),
        loss=round(report.loss, 4),
        measured_by=f"python -m jax_alexnet.evaluate --weights {name} --data {place}{crops}",
        versions={key: each for key, each in sorted(description["versions"].items()) if key != "platform"},
        made_by=f"{PROGRAM} {shlex.join(again)}",
    )


def _words(settings: PackSettings, name: str) -> list[str]:
    """The command line that packs the same again, but for where the run lies."""
    words = ["--run", "RUN", "--name", name]
    words += ["--checkpoint", settings.checkpoint] if settings.checkpoint != "best" else []
    return words + (["--crops", str(settings.crops)] if settings.crops != 1 else [])


def _place(data: str) -> str:
    """The data's kind, with PATH for where they lay."""
    spec = parse_spec(data)
    return f"{spec.kind}:PATH" if KINDS[spec.kind] == "PATH" else data


def _deciding(saved: CompleteSettings) -> dict[str, Any]:
    """The settings that decided what a run learnt, by name; of weights that it began with, not where they lay."""
    found = {item.name: getattr(saved, item.name) for item in fields(saved) if item.name not in _OF_THE_PLACE}
    return {**found, "init_from": saved.init_from and Path(saved.init_from).name}


def _flags(saved: CompleteSettings) -> list[str]:
    """The flags that train such a run: what a recipe and a network don't already say."""
    words = ["--model", saved.model, "--data", _place(saved.data)]
    return words + repeating.flag_words(_deciding(saved), repeating.usual(saved, resolve))


def _epoch_of(rows: Sequence[Any], step: int) -> float:
    """Passes over the training set after so many steps, by the run's own rows."""
    return round(next((row.epoch for row in rows if row.step == step), 0.0), 2)
