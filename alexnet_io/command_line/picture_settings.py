"""Which trained network looks at which pictures: what the commands that do so have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet_io.command_line.flags import positional, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS

_ARITHMETIC = "arithmetic and devices"
network_setting = partial(setting, group="the trained network")


@dataclass(frozen=True)
class PictureSettings:
    """Pictures, a trained network, and where it computes."""

    images: list[Path] = positional("pictures, or folders of them at any depth", metavar="FILE")
    run: Path | None = network_setting(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = network_setting(
        None,
        "instead of a run: a .safetensors, .npz or .pth file, such as an export or torchvision's, or a name that "
        "python -m jax_alexnet.weights lists",
        metavar="FILE|NAME",
    )
    model: str | None = network_setting(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )
    checkpoint: str = network_setting(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )
    devices: str = setting("1", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )
