"""Which trained network a command means: a run's directory, or a file of weights. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_io.command_line.flags import setting
from alexnet_io.command_line.train_settings import MODELS
from alexnet_io.errors import UserError

network_setting = partial(setting, group="the trained network")

# Flags that say what the other source knows by itself.
_OF_WEIGHTS = {"model": "its network", "class_names": "its classes"}
_OF_RUNS = {"checkpoint": "one set of weights"}


@dataclass(frozen=True)
class NetworkSource:
    """The two sources of a trained network; a command that has more than these takes the classes below besides."""

    run: Path | None = network_setting(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = network_setting(
        None,
        "instead of a run: a .safetensors, .npz or .pth file, such as an export or torchvision's, a folder as export "
        "--format hub leaves it, or a name that python -m jax_alexnet.weights lists",
        metavar="FILE|NAME",
    )
    model: str | None = network_setting(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )


@dataclass(frozen=True)
class GivenClassNames:
    """The classes of weights that don't know theirs."""

    class_names: Path | None = network_setting(
        None,
        "text file with the name of class 0, 1, ... a line, for --weights without them; or imagenet: its 1,000",
        metavar="FILE|imagenet",
    )


@dataclass(frozen=True)
class WhichCheckpoint:
    """Which of a run's weights."""

    checkpoint: str = network_setting(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )


def check_source(run: Path | None, weights: Path | None, given: Mapping[str, Any]) -> None:
    """Refuse none or two networks, and flags that have nothing to say of the one that there is.

    Args:
        run: the directory that training wrote.
        weights: a file of weights.
        given: the settings that the command line has, by name.

    Raises:
        UserError: as said.
    """
    if run is None and weights is None:
        raise UserError(
            "pass --run DIR, the directory that training wrote (its --output), or --weights FILE, such as an export, "
            "or --weights NAME, of those that python -m jax_alexnet.weights lists"
        )
    if run is not None and weights is not None:
        raise UserError("--run and --weights are two networks: pass one of them")
    source, other, foreign = ("--run", "--weights", _OF_WEIGHTS) if run else ("--weights", "--run", _OF_RUNS)
    for name, known in foreign.items():
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is for {other}: {source} has {known} itself; leave {flag} out")
