"""`python -m jax_alexnet.pack`: a run's weights with their card, as they come with the project.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.evaluate_settings import PROTOCOLS
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.errors import UserError
from alexnet_io.weights import shipped

PROGRAM = "python -m jax_alexnet.pack"


@dataclass(frozen=True)
class PackSettings:
    """Write a run's weights as NAME.safetensors with a card, NAME.md, measured on test images from the file itself."""

    EXAMPLES: ClassVar = (
        (
            "--run runs/cifar --data-is CIFAR-10",
            "into the package; then: python -m jax_alexnet.predict --weights cifar_18pct x.png",
        ),
    )

    run: Path | None = setting(None, "the directory that training wrote; needed", metavar="DIR", group="what")
    name: str | None = setting(
        None, "by which the weights will be found", metavar="NAME", group="what", unset="the network's"
    )
    checkpoint: str = setting(
        "best", "best (highest validation or test accuracy) or newest", choices=("best", "newest"), group="what"
    )
    data_is: str | None = setting(
        None, "what the card says of the data, in words; needed", metavar="TEXT", group="the card"
    )
    crops: int = setting(
        1,
        "crops of each test image, as in python -m jax_alexnet.evaluate",
        choices=tuple(PROTOCOLS),
        metavar="1|10|9",
        group="the card",
    )
    into: Path = setting(
        shipped.FOLDER, "the folder", metavar="DIR", group="where to", unset="the package's, where names are looked up"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, say what the weights are worth, and return the exit code."""
    settings = parse(PackSettings, PROGRAM, arguments)
    if settings.run is None or not settings.data_is:
        raise UserError(
            "pass --run DIR, the directory that training wrote, and --data-is TEXT, which says what it learnt from"
        )
    if not settings.into.is_dir():
        raise UserError(f"--into {printable(settings.into)} is not a folder: make it first")
    from jax_alexnet.pack_command import pack

    card, name = pack(settings)
    print(card.line())
    print(f"wrote {printable(settings.into / name)}{shipped.ENDING} and {shipped.CARD_ENDING}")
    return 0


if __name__ == "__main__":
    run_command(main)
