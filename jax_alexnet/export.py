"""`python -m jax_alexnet.export`: a run's network as one file for Flax, `torch_ref` or torchvision."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line import packages
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.errors import UserError, on_the_way

PROGRAM = "python -m jax_alexnet.export"


@dataclass(frozen=True)
class ExportSettings:
    """Write a run's weights to one file, with all that predicting needs: the network, its input, its classes' names."""

    EXAMPLES: ClassVar = (
        (
            "--run runs/cifar --to cifar.safetensors",
            "then: python -m jax_alexnet.predict --weights cifar.safetensors x.png",
        ),
        ("--run runs/cifar --to cifar.pth --checkpoint newest", "a state dict for PyTorch, under state_dict"),
    )

    run: Path | None = setting(None, "the directory that training wrote; needed", metavar="DIR", group="what")
    checkpoint: str = setting(
        "best", "best (highest validation or test accuracy) or newest", choices=("best", "newest"), group="what"
    )
    to: Path | None = setting(
        None,
        "the file: .safetensors, or .pth for torch_ref and torchvision; needed",
        metavar="FILE",
        group="where to",
        writes="binary",
    )
    home: str = setting(
        "torch_ref",
        "whose names and layouts: flax, torch_ref, torchvision",
        choices=("flax", "torch_ref", "torchvision"),
        group="where to",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, say where the file is, and return the exit code."""
    settings = parse(ExportSettings, PROGRAM, arguments)
    if settings.run is None or settings.to is None:
        raise UserError("pass --run DIR, the directory that training wrote, and --to FILE, such as --to weights.pth")
    from jax_alexnet.files import weight_files, weights
    from jax_alexnet.files.exported import say_fallback
    from jax_alexnet.files.finished_run import load_run, saved_settings

    saved = saved_settings(settings.run)
    model = saved.model
    if weight_files.check_ending(settings.to, settings.home) == "torch":
        packages.require("torch", by=f"--to {printable(settings.to)}")
    weights.check_home(settings.home, model, saved.ablate)
    import jax
    import numpy as np

    from alexnet_io.run.network_facts import NetworkFacts

    network = load_run(settings.run, which=settings.checkpoint, devices=jax.devices()[:1])
    say_fallback(network, settings.checkpoint)
    facts = NetworkFacts.of(network.settings, network.class_names, network.statistics, network.step)
    params = jax.tree.map(np.asarray, network.params)
    with on_the_way():
        weights.save(settings.to, params, model, facts.image_size, settings.home, facts)
    print(f"{model}, {network.which} weights, step {network.step}, for {settings.home}: {printable(settings.to)}")
    return 0


if __name__ == "__main__":
    run_command(main)
