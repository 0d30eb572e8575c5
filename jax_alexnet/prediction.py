"""The likeliest classes of pictures, as they are read: what `python -m jax_alexnet.predict` does."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line import output_file
from alexnet_io.command_line.picture_settings import PictureSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import Resizing, read_rgb, resize
from alexnet_io.data.sources.synset_names import readable
from alexnet_io.errors import UserError
from jax_alexnet import steps
from jax_alexnet.files.exported import open_asked, with_names
from jax_alexnet.files.finished_run import TrainedNetwork

_BATCH = 32


def run(settings: PictureSettings, class_names: Path | None, json: str | None, paths: Sequence[Path]) -> int:
    """Predict and print; returns the exit code: 1 if a file could not be read."""
    network = open_asked(settings)
    return report(with_names(network, class_names).for_inference(), paths, json)


def report(network: TrainedNetwork, paths: Sequence[Path], json_path: str | None) -> int:
    """Print the five likeliest classes of each file as it is done; unreadable files are named and passed over."""
    found: list[dict[str, Any]] = []
    failed = 0
    for path, outcome in predictions(network, paths):
        shown = printable(path)
        if isinstance(outcome, UserError):
            failed += 1
            print(f"error: {outcome}", file=sys.stderr)
            found.append({"file": shown, "error": str(outcome)})
            continue
        print(shown)
        for name, probability in outcome:
            print(f"  {probability:7.2%}  {readable(name)}")
        found.append(
            {"file": shown, "classes": [{"name": n, "readable": readable(n), "probability": p} for n, p in outcome]}
        )
    if json_path is not None:
        output_file.write_json("--json", json_path, {"predictions": found})
    return 1 if failed else 0


def predictions(
    network: TrainedNetwork, paths: Sequence[Path]
) -> Iterator[tuple[Path, list[tuple[str, float]] | UserError]]:
    """For each file, in order: (class name, probability) of the five likeliest classes, or what is wrong with it."""
    step = network.eval_step
    for start in range(0, len(paths), _BATCH):
        outcomes: list[Any] = []
        images = []
        for path in paths[start : start + _BATCH]:
            try:
                images.append(_stored(network, path))
                outcomes.append(None)
            except UserError as error:
                outcomes.append(error)
        rows = iter(_probabilities(network, step, np.stack(images)) if images else [])
        for path, outcome in zip(paths[start : start + _BATCH], outcomes, strict=True):
            if outcome is None:
                row = next(rows)
                best = np.argsort(-row, kind="stable")[:5]
                outcome = [(network.class_names[i], float(row[i])) for i in best]
            yield path, outcome


def _stored(network: TrainedNetwork, path: Path) -> np.ndarray:
    """The file decoded and resized as the training images were."""
    side = network.settings.stored_size
    return resize(read_rgb(path), Resizing(side, side, side), printable(path))


def _probabilities(network: TrainedNetwork, step: Any, images: np.ndarray) -> np.ndarray:
    """Softmax in float64 (n, classes) of uint8 images (n, height, width, 3)."""
    # One batch shape, so that one compilation serves any number of files.
    size = -(-_BATCH // network.mesh.devices.size) * network.mesh.devices.size
    padded = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), np.uint8)])
    batch = steps.DeviceBatch(padded, np.zeros(size, np.int32), np.ones(size, np.float32))
    logits, _ = step(network.params, steps.split(batch, network.mesh), network.statistics)
    logits = np.asarray(logits, np.float64)[: len(images)]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
