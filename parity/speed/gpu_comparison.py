"""`python -m parity.speed.gpu_comparison`: what a training step moves on a GPU, beside the obvious form of its network.

Both are compiled in the same way for GPUs that needn't be there, in the repository's training step: augmentation, loss
and optimizer are the same, and the network is either the repository's or `plain_jax.PlainAlexNet`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from alexnet_io.command_line import output_file
from alexnet_io.command_line.settings import parse, run_command, setting
from jax_alexnet.compiled.gpu_reading import GpuProgram
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.compiled.gpu_step import compile_step
from jax_alexnet.compiled.gpu_text import as_json
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS
from parity.speed.plain_jax import PlainAlexNet

PROGRAM = "python -m parity.speed.gpu_comparison"
# The others have layers that Flax's box lacks.
MODELS = ("single_column", "two_column", "caffe_alexnet", "caffenet", "one_weird_trick", "one_weird_trick_lrn")


@dataclass(frozen=True)
class ComparisonSettings(GpuSettings):
    """Compile the training step for GPUs that needn't be there, with the network as it is and in its obvious form."""

    model: str = setting("single_column", "the network: " + ", ".join(MODELS), choices=MODELS)


@dataclass(frozen=True)
class Comparison:
    """The programs of one training step with either form of the network."""

    own: GpuProgram
    obvious: GpuProgram

    @property
    def ratio(self) -> float:
        """Bytes of the own program over those of the obvious one."""
        return self.own.nbytes / self.obvious.nbytes

    def table(self) -> str:
        """Both side by side, and the ratio of what they move."""
        rows = [
            ("GB moved a step and GPU", lambda p: f"{p.nbytes / 1e9:.2f}"),
            ("MB moved an image", lambda p: f"{p.nbytes / p.settings['batch_size'] / 1e6:.1f}"),
            ("GB temporary", lambda p: f"{p.temporary_bytes / 1e9:.2f}"),
            ("ms modelled", lambda p: f"{p.seconds * 1e3:.2f}"),
            ("scatters", lambda p: str(len(p.scatters))),
            ("copies of activations", lambda p: str(len(p.copies))),
            ("MB summed across GPUs", lambda p: f"{p.sent / 1e6:.1f}"),
        ]
        lines = [f"{'':24}{'own':>10}{'obvious':>10}"]
        lines += [f"{name:24}{show(self.own):>10}{show(self.obvious):>10}" for name, show in rows]
        return "\n".join([*lines, f"bytes moved: {self.ratio:.3f} of the obvious form's"])

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "schema": "gpu-comparison/1",
            "ratio": self.ratio,
            "own": as_json(self.own),
            "obvious": as_json(self.obvious),
        }


def compare_with_obvious(settings: GpuSettings) -> Comparison:
    """Compile the step with the repository's network and with the obvious form of the same one.

    The obvious form is data-parallel, whatever the repository's is.

    Raises:
        UserError: the compiler isn't installed, the settings don't go together, or the network has no obvious form.
    """
    return Comparison(compile_step(settings), compile_step(replace(settings, parallel="data"), _obvious))


def _obvious(network: AlexNet) -> PlainAlexNet:
    table = VARIANTS[network.variant] if isinstance(network.variant, str) else network.variant
    return PlainAlexNet(table, network.classes or table.classes, network.dtype)


def main() -> int:
    """Compile, print and return the exit code."""
    settings = parse(ComparisonSettings, PROGRAM)
    with output_file.others_on_standard_error(settings.json):
        found = compare_with_obvious(settings)
        where = f"{settings.batch_size} images on each of {settings.devices} {settings.gpu}"
        print(f"{settings.model}, {settings.precision}, {where}\n{found.table()}")
        if settings.json:
            output_file.write_json("--json", settings.json, found.as_json(), indent=1)
    return 0


if __name__ == "__main__":
    run_command(main)
