"""`python -m jax_alexnet.predict`: the likeliest classes of pictures, by a run or by a file of weights."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse_given, positional, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS
from alexnet_io.errors import UserError
from jax_alexnet.files.network_source import check_source

if TYPE_CHECKING:
    import numpy as np

    from jax_alexnet.files.finished_run import TrainedNetwork

PROGRAM = "python -m jax_alexnet.predict"
_BATCH = 32
_ARITHMETIC = "arithmetic and devices"
_network = partial(setting, group="the trained network")


@dataclass(frozen=True)
class PredictSettings:
    """Print the five likeliest classes of each picture, with their probabilities."""

    EXAMPLES: ClassVar = (
        ("--run runs/cifar picture.jpg other.png", "two pictures, by the run's best weights"),
        ("--weights w.safetensors holiday/ --json -", "all of a folder, by an export, as JSON to standard output"),
        ("--weights alexnet.pth --class-names imagenet.txt dog.jpg", "by torchvision's weights"),
    )

    images: list[Path] = positional("pictures, or folders of them at any depth", metavar="FILE")
    run: Path | None = _network(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = _network(
        None, "instead of a run: a .safetensors, .npz or .pth file, such as an export or torchvision's", metavar="FILE"
    )
    model: str | None = _network(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )
    class_names: Path | None = _network(
        None, "text file with the name of class 0, 1, ... a line, for --weights without them", metavar="FILE"
    )
    checkpoint: str = _network(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )
    devices: str = setting("1", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )
    json: str | None = setting(
        None,
        "write the predictions to this file too, as one JSON object",
        group="reporting",
        metavar="FILE",
        writes="text",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict, print, and return the exit code: 1 if a file could not be read."""
    settings, given = parse_given(PredictSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    paths = pictures(settings.images)
    with output_file.others_on_standard_error(settings.json):
        return report(_network_of(settings).for_inference(), paths, settings.json)


def pictures(paths: Sequence[Path]) -> list[Path]:
    """The files, and in a folder's place the pictures in it and below, by name.

    Raises:
        UserError: a folder without pictures, or one that can't be read.
    """
    from alexnet_io.data.image_types import EXTENSIONS
    from alexnet_io.data.sources.files import image_names, is_empty

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        shown = printable(path)
        try:
            empty = is_empty(path)
        except OSError as error:
            raise UserError(f"{shown} can't be read: {error.strerror or error}") from None
        inside = [path / name for name in image_names(path)]
        if not inside:
            what = "is empty" if empty else f"has no pictures in it or below ({', '.join(EXTENSIONS)})"
            raise UserError(f"{shown} {what}: name pictures, or a folder that has some")
        found += inside
    return found


def _network_of(settings: PredictSettings) -> "TrainedNetwork":
    from jax_alexnet.files.exported import open_network, with_names

    network = open_network(
        settings.run,
        settings.weights,
        model=settings.model,
        checkpoint=settings.checkpoint,
        devices=settings.devices,
        precision=settings.precision,
    )
    return with_names(network, settings.class_names)


def report(network: "TrainedNetwork", paths: Sequence[Path], json_path: str | None) -> int:
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
            print(f"  {probability:7.2%}  {name}")
        found.append({"file": shown, "classes": [{"name": n, "probability": p} for n, p in outcome]})
    if json_path is not None:
        output_file.write_json("--json", json_path, {"predictions": found})
    return 1 if failed else 0


def predictions(
    network: "TrainedNetwork", paths: Sequence[Path]
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
    from alexnet_io.data.decoding import Resizing, read_rgb, resize

    side = network.settings.stored_size
    return resize(read_rgb(path), Resizing(side, side, side), printable(path))


def _probabilities(network: "TrainedNetwork", step: Any, images: "np.ndarray") -> "np.ndarray":
    """Softmax in float64 (n, classes) of uint8 images (n, height, width, 3)."""
    import numpy as np

    from jax_alexnet import steps

    # One batch shape, so that one compilation serves any number of files.
    size = -(-_BATCH // network.mesh.devices.size) * network.mesh.devices.size
    padded = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), np.uint8)])
    batch = steps.DeviceBatch(padded, np.zeros(size, np.int32), np.ones(size, np.float32))
    logits, _ = step(network.params, steps.split(batch, network.mesh), network.statistics)
    logits = np.asarray(logits, np.float64)[: len(images)]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    run_command(main)
