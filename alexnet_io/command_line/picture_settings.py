"""Which trained network looks at which pictures: what the commands that do so have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexnet_io.command_line.flags import positional, setting
from alexnet_io.command_line.network_source import NetworkSource, WhichCheckpoint
from alexnet_io.command_line.train_settings import PRECISIONS

_ARITHMETIC = "arithmetic and devices"


@dataclass(frozen=True)
class _Pictures:
    images: list[Path] = positional("pictures, or folders of them at any depth", metavar="FILE")


@dataclass(frozen=True)
class PictureSettings(WhichCheckpoint, NetworkSource, _Pictures):
    """Pictures, a trained network, and where it computes."""

    devices: str = setting("1", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )
