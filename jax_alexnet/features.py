"""`python -m jax_alexnet.features`: what a layer of a trained network puts out for pictures, in a NumPy file.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.network_source import check_source
from alexnet_io.command_line.picture_settings import PictureSettings
from alexnet_io.command_line.settings import parse_given, run_command, setting
from alexnet_io.errors import UserError

PROGRAM = "python -m jax_alexnet.features"


@dataclass(frozen=True)
class FeaturesSettings(PictureSettings):
    """Write what a layer puts out for each picture: an .npz of paths, features and, for a folder of classes, these."""

    EXAMPLES: ClassVar = (
        ("holiday/ --run runs/two_column --layer relu7 --output holiday.npz", "the paper's features, after fc7's ReLU"),
        ("cats/ dogs/ --weights alexnet.pth --layer fc6 --output pets.npz", "of two folders, by torchvision's weights"),
    )

    layer: str = setting("fc7", "whose output; fc7 is the layer itself, relu7 what follows its ReLU", group="what")
    output: Path | None = setting(None, "the .npz file; needed", metavar="FILE", group="where to", writes="binary")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, and return the exit code: 1 if a picture could not be read."""
    settings, given = parse_given(FeaturesSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    if settings.output is None or not settings.output.name.lower().endswith(".npz"):
        raise UserError("--output FILE is needed, and must end in .npz, such as --output features.npz")
    from alexnet_io.data.picture_paths import pictures

    paths = pictures(settings.images)
    from jax_alexnet import feature_file

    return feature_file.write(settings, settings.layer, settings.output, paths)


if __name__ == "__main__":
    run_command(main)
