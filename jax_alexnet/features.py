"""`python -m jax_alexnet.features`: what a layer of a trained network puts out for pictures, in a NumPy file.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.settings import parse_given, positional, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS
from alexnet_io.errors import UserError
from jax_alexnet.files.network_source import check_source

PROGRAM = "python -m jax_alexnet.features"
_ARITHMETIC = "arithmetic and devices"
_network = partial(setting, group="the trained network")


@dataclass(frozen=True)
class FeaturesSettings:
    """Write what a layer puts out for each picture: an .npz of paths, features and, for a folder of classes, these."""

    EXAMPLES: ClassVar = (
        ("holiday/ --run runs/two_column --layer relu7 --output holiday.npz", "the paper's features, after fc7's ReLU"),
        ("cats/ dogs/ --weights alexnet.pth --layer fc6 --output pets.npz", "of two folders, by torchvision's weights"),
    )

    images: list[Path] = positional("pictures, or folders of them at any depth", metavar="FILE")
    layer: str = setting("fc7", "whose output; fc7 is the layer itself, relu7 what follows its ReLU", group="what")
    output: Path | None = setting(None, "the .npz file; needed", metavar="FILE", group="where to", writes="binary")
    run: Path | None = _network(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = _network(
        None, "instead of a run: a .safetensors, .npz or .pth file, such as an export or torchvision's", metavar="FILE"
    )
    model: str | None = _network(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )
    checkpoint: str = _network(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )
    devices: str = setting("1", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, and return the exit code: 1 if a picture could not be read."""
    settings, given = parse_given(FeaturesSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    if settings.output is None or not settings.output.name.lower().endswith(".npz"):
        raise UserError("--output FILE is needed, and must end in .npz, such as --output features.npz")
    from alexnet_io.data.picture_paths import pictures

    paths = pictures(settings.images)
    from jax_alexnet import feature_file

    return feature_file.write(settings, paths)


if __name__ == "__main__":
    run_command(main)
