"""`python -m jax_alexnet.predict`: the likeliest classes of image files."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_io.errors import UserError
from alexnet_io.settings import parse, positional, run_command, setting
from alexnet_io.train_settings import MODELS, PRECISIONS

if TYPE_CHECKING:
    import numpy as np

    from jax_alexnet.runs import TrainedNetwork

PROGRAM = "python -m jax_alexnet.predict"
_BATCH = 32


@dataclass(frozen=True)
class PredictSettings:
    """Print the five likeliest classes of each image, with their probabilities."""

    images: list[Path] = positional("image files")
    run: Path | None = setting(None, "the directory that training wrote")
    weights: Path | None = setting(None, "instead of a run: a .safetensors or .pth file, torchvision's too")
    model: str | None = setting(None, "the network that --weights is for: " + ", ".join(MODELS), choices=MODELS)
    class_names: Path | None = setting(None, "text file with the name of class 0, 1, ... a line, for --weights")
    checkpoint: str = setting("best", "best (highest test accuracy) or newest", choices=("best", "newest"))
    devices: str = setting("1", "all, a count, or ids such as 0,2")
    precision: str | None = setting(None, "arithmetic instead of the run's own", choices=PRECISIONS)
    json: Path | None = setting(None, "also write the predictions to this file, as one JSON object")


def main() -> int:
    """Predict, print, and return the exit code: 1 if a file could not be read."""
    settings = parse(PredictSettings, PROGRAM)
    if (settings.run is None) == (settings.weights is None):
        raise UserError(
            "pass --run DIR, the directory that training wrote (its --output), or --model NAME --weights FILE"
        )
    if settings.weights is not None and settings.model is None:
        raise UserError(f"--weights needs --model NAME: choose from {', '.join(MODELS)}")
    from jax_alexnet.devices import choose_devices, set_precision
    from jax_alexnet.runs import load_run, load_weights, saved_settings

    if settings.run is not None:
        set_precision(settings.precision or saved_settings(settings.run).precision)
        devices = choose_devices(settings.devices)
        network = load_run(settings.run, which=settings.checkpoint, devices=devices, precision=settings.precision)
    else:
        assert settings.weights is not None and settings.model is not None
        set_precision(settings.precision or "float32")
        network = load_weights(
            settings.weights,
            settings.model,
            devices=choose_devices(settings.devices),
            precision=settings.precision or "float32",
            class_names=settings.class_names,
        )
    return report(network.for_inference(), settings.images, settings.json)


def report(network: "TrainedNetwork", paths: list[Path], json_path: Path | None) -> int:
    """Print the five likeliest classes of each file as it is done; unreadable files are named and passed over."""
    from alexnet_io.printing import printable

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
            print(f"  {probability:7.2%}  {name}")
        found.append({"file": shown, "classes": [{"name": n, "probability": p} for n, p in outcome]})
    if json_path is not None:
        from jax_alexnet.evaluate import write_json

        write_json(json_path, {"predictions": found})
    return 1 if failed else 0


def predictions(
    network: "TrainedNetwork", paths: list[Path]
) -> Iterator[tuple[Path, list[tuple[str, float]] | UserError]]:
    """For each file, in order: (class name, probability) of the five likeliest classes, or what is wrong with it."""
    import numpy as np

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


def _stored(network: "TrainedNetwork", path: Path) -> "np.ndarray":
    """The file decoded and resized as the training images were."""
    from alexnet_io.decoding import read_rgb, resize_and_center_crop

    side = network.settings.stored_size
    assert side is not None
    return resize_and_center_crop(read_rgb(path), side, side)


def _probabilities(network: "TrainedNetwork", step: Any, images: "np.ndarray") -> "np.ndarray":
    """Softmax in float64 (n, classes) of uint8 images (n, height, width, 3)."""
    import numpy as np

    from jax_alexnet import steps

    # One batch shape, so that one compilation serves any number of files.
    size = -(-_BATCH // network.mesh.devices.size) * network.mesh.devices.size
    padded = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), np.uint8)])
    batch = steps.Batch(padded, np.zeros(size, np.int32), np.ones(size, np.float32))
    logits, _ = step(network.params, steps.split(batch, network.mesh), network.statistics)
    logits = np.asarray(logits, np.float64)[: len(images)]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    run_command(main)
