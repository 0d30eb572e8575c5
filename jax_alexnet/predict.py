"""`python -m jax_alexnet.predict`: the likeliest classes of pictures, by a run or by a file of weights.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.settings import parse_given, positional, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS
from jax_alexnet.files.network_source import check_source

PROGRAM = "python -m jax_alexnet.predict"
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
    from alexnet_io.data.picture_paths import pictures

    paths = pictures(settings.images)
    from jax_alexnet import prediction

    with output_file.others_on_standard_error(settings.json):
        return prediction.run(settings, paths)


if __name__ == "__main__":
    run_command(main)
