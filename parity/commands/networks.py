"""`python -m parity layers`, `grads`, `train`, `data` and `clean`: the networks of this repository."""

from __future__ import annotations

import time
from pathlib import Path

from alexnet_io.command_line import output_file
from parity import settings
from parity.alexnet import clean_runs, data_comparison, layerwise, trajectory
from parity.commands.output import finish, show


def layers(chosen: settings.Layers) -> int:
    """Every layer, forward, and of `grads` backward, too; returns the exit code, as all here do."""
    began = time.monotonic()
    report = layerwise.run(
        settings.chosen_models(chosen.model),
        dtype=chosen.dtype,
        gradients=isinstance(chosen, settings.Grads),
        seed=chosen.seed,
        batch=chosen.batch,
        images=Path(chosen.images) if chosen.images else None,
        weights=Path(chosen.weights) if chosen.weights else None,
        show=lambda part: show(part, chosen),
    )
    report.settings["seconds"] = round(time.monotonic() - began, 1)
    return finish(report, chosen, chosen.arrays)


grads = layers


def train(chosen: settings.Train) -> int:
    """Optimizers step by step, and runs."""
    report = trajectory.run(
        settings.chosen_models(chosen.model),
        list(settings.RECIPES) if chosen.recipe == "all" else [chosen.recipe],
        dtype=chosen.dtype,
        steps=chosen.steps,
        runs=chosen.runs,
        batch=chosen.batch,
        image_size=chosen.image_size,
        seed=chosen.seed,
        show=lambda part: show(part, chosen),
    )
    return finish(report, chosen)


def data(chosen: settings.Data) -> int:
    """Decoding, input, augmentation, learning rates."""
    images = Path(chosen.images) if chosen.images else None
    report = data_comparison.run(images, seed=chosen.seed, pictures=chosen.pictures, dtype=chosen.dtype)
    show(report, chosen)
    return finish(report, chosen)


def clean(chosen: settings.Clean) -> int:
    """Runs without any bug."""
    score = clean_runs.run(chosen.runs, chosen.seed, show=lambda run: print(run.line, flush=True))
    print(score.summary)
    if chosen.json:
        output_file.write_by("--json", chosen.json, score.write_json)
    return score.exit_code
