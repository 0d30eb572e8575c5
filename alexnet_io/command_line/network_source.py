"""Which trained network a command means: a run's directory, or a file of weights. Imports no framework."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_io.errors import UserError

# Flags that say what the other source knows by itself.
_OF_WEIGHTS = {"model": "its network", "class_names": "its classes"}
_OF_RUNS = {"checkpoint": "one set of weights"}


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
