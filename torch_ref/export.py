"""`python -m torch_ref.export`: a trained network of the reference as one file, of weights or as a program.

Imports PyTorch when the settings are known to be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line import packages
from alexnet_io.command_line.export_settings import NetworkToExport, checked_format, place_setting
from alexnet_io.command_line.network_source import check_source
from alexnet_io.command_line.settings import parse_given, run_command
from alexnet_io.errors import UserError

PROGRAM = "python -m torch_ref.export"
FORMATS = ("safetensors", "npz", "pth", "onnx", "pt2", "hub")
PROGRAMS = ("onnx", "pt2")


@dataclass(frozen=True)
class ExportSettings(NetworkToExport):
    """Write a trained network of the reference to one file, with all that predicting needs.

    Every export is compared with its source, on a few pictures in float32, before it is put in place.
    """

    EXAMPLES: ClassVar = (
        ("--run runs/cifar --to cifar.onnx", "for ONNX Runtime and others, by torch.onnx.export"),
        ("--weights cifar_18pct --to cifar.pt2", "for torch.export.load(...).module()(images)"),
        ("--run runs/cifar --to cifar.pth --checkpoint newest", "a state dict, under state_dict"),
    )

    format: str | None = place_setting(None, ", ".join(FORMATS), choices=FORMATS, unset="as the ending of --to says")
    home: str = place_setting(
        "torch_ref", "of weights, whose names: torch_ref, torchvision", choices=("torch_ref", "torchvision")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, say where the file is, and return the exit code."""
    settings, given = parse_given(ExportSettings, PROGRAM, arguments)
    packages.require("torch", by=PROGRAM)
    check_source(settings.run, settings.weights, given)
    chosen = checked_format(settings, settings.format, FORMATS, "onnxscript")
    if "home" in given and chosen in (*PROGRAMS, "hub"):
        raise UserError(f"--home is for files of weights, and --to {settings.to} is {chosen}: leave --home out")
    from torch_ref.exporting import export

    export(settings, chosen)
    return 0


if __name__ == "__main__":
    run_command(main)
