"""The commands of `python -m parity`: the settings of each, and the module that does it, imported when it is asked for.

A command is a function of its own name in that module: it takes the parsed settings and returns the exit code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from alexnet_io.command_line import output_file, packages
from alexnet_io.command_line.settings import parse
from parity import settings
from parity.speed import settings as speed_settings


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        settings: the dataclass that its words are parsed into.
        module: that does it.
        computes_here: whether it runs both frameworks in this very process.
    """

    settings: type[Any]
    module: str
    computes_here: bool = True


TABLE = {
    "layers": Command(settings.Layers, "parity.commands.networks"),
    "grads": Command(settings.Grads, "parity.commands.networks"),
    "train": Command(settings.Train, "parity.commands.networks"),
    "data": Command(settings.Data, "parity.commands.networks"),
    "clean": Command(settings.Clean, "parity.commands.networks"),
    "runs": Command(settings.Runs, "parity.commands.runs"),
    "mutants": Command(settings.Mutants, "parity.commands.mutants"),
    "compare": Command(settings.Compare, "parity.commands.compare", computes_here=False),
    "convert": Command(settings.Convert, "parity.commands.convert", computes_here=False),
    "throughput": Command(speed_settings.Throughput, "parity.speed.commands", computes_here=False),
    "profile": Command(speed_settings.Profile, "parity.speed.commands", computes_here=False),
    "gpu": Command(speed_settings.OnGpu, "parity.speed.on_gpu.command", computes_here=False),
}


def run(name: str, arguments: list[str]) -> int:
    """Parse a command's settings and run it; returns the exit code."""
    command, program = TABLE[name], f"python -m parity {name}"
    chosen = parse(command.settings, program, arguments)
    packages.require(*needed(chosen), by=program)
    with output_file.others_on_standard_error(getattr(chosen, "json", None), getattr(chosen, "html", None)):
        if command.computes_here:
            start_frameworks()
        return getattr(import_module(command.module), name)(chosen)


def needed(chosen: Any) -> list[str]:
    """The frameworks that a command needs in this environment, by import names."""
    if isinstance(chosen, speed_settings.OnGpu):
        return []  # what is missing is a finding of the part that needs it
    if isinstance(chosen, speed_settings.Profile) and chosen.gpu:
        return ["jax", "flax"]
    if isinstance(chosen, settings.Convert):
        named = [str(chosen.weights), str(chosen.output)]
        by_numpy = [file.endswith((".safetensors", ".npz")) for file in named]
        return [
            *(["torch"] if not all(by_numpy) else []),
            *(["safetensors"] if any(file.endswith(".safetensors") for file in named) else []),
        ]
    timed = isinstance(chosen, speed_settings.Throughput | speed_settings.Profile)
    asked = chosen.frameworks.split(",") if timed else ["jax", "torch"]
    pythons: dict[str, str | None] = {}
    if timed or isinstance(chosen, settings.Compare):
        pythons = {"jax": chosen.jax_python, "torch": chosen.torch_python}
    here = [side for side in ("jax", "torch") if side in asked and not pythons.get(side)]
    return [name for side in here for name in {"jax": ("jax", "flax"), "torch": ("torch",)}[side]]


def start_frameworks() -> None:
    """Settings that must be made before JAX touches a device: float64, no grabbing of all GPU memory."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax  # which the commands' help does without

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
