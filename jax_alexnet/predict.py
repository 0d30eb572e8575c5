"""`python -m jax_alexnet.predict`: the likeliest classes of pictures, by a run or by a file of weights.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.network_source import GivenClassNames, check_source
from alexnet_io.command_line.picture_settings import PictureSettings
from alexnet_io.command_line.settings import parse_given, run_command, setting

PROGRAM = "python -m jax_alexnet.predict"


@dataclass(frozen=True)
class PredictSettings(GivenClassNames, PictureSettings):
    """Print the five likeliest classes of each picture, with their probabilities."""

    EXAMPLES: ClassVar = (
        ("--run runs/cifar picture.jpg other.png", "two pictures, by the run's best weights"),
        ("--weights w.safetensors holiday/ --json -", "all of a folder, by an export, as JSON to standard output"),
        ("--weights cifar_18pct cat.png", "by weights that come with the project"),
        ("--weights alexnet.pth --class-names imagenet dog.jpg", "by torchvision's"),
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
        return prediction.run(settings, settings.class_names, settings.json, paths)


if __name__ == "__main__":
    run_command(main)
