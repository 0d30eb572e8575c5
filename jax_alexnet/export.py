"""`python -m jax_alexnet.export`: a run's weights as a file for Flax, `torch_ref` or torchvision."""

from dataclasses import dataclass
from pathlib import Path

from alexnet_io.errors import UserError
from alexnet_io.settings import parse, run_command, setting

PROGRAM = "python -m jax_alexnet.export"


@dataclass(frozen=True)
class ExportSettings:
    """Write the weights of a run to one file."""

    run: Path | None = setting(None, "the directory that training wrote")
    to: Path | None = setting(None, "the file: .safetensors, or .pth for torch_ref and torchvision")
    home: str = setting(
        "torch_ref",
        "whose names and layouts: flax, torch_ref, torchvision",
        choices=("flax", "torch_ref", "torchvision"),
    )
    checkpoint: str = setting("best", "best (highest test accuracy) or newest", choices=("best", "newest"))


def main() -> int:
    """Export, say where the file is, and return the exit code."""
    settings = parse(ExportSettings, PROGRAM)
    if settings.run is None or settings.to is None:
        raise UserError("pass --run DIR, the directory that training wrote, and --to FILE, such as --to weights.pth")
    import jax
    import numpy as np

    from jax_alexnet import weights
    from jax_alexnet.runs import load_run

    network = load_run(settings.run, which=settings.checkpoint, devices=jax.devices()[:1])
    params = jax.tree.map(np.asarray, network.params)
    try:
        weights.save(settings.to, params, network.settings.model, network.augmentation.image_size, settings.home)
    except OSError as error:
        raise UserError(
            f"--to {settings.to} can't be written: {error.strerror or error}; choose another file"
        ) from None
    print(f"{network.settings.model}, step {network.step}, for {settings.home}: {settings.to}")
    return 0


if __name__ == "__main__":
    run_command(main)
