"""What `python -m jax_alexnet.pack` is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.evaluate_settings import PROTOCOLS
from alexnet_io.command_line.settings import setting
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
