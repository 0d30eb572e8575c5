"""The settings of `python -m torch_ref.export`. Imports no framework."""

from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.export_settings import NetworkToExport, place_setting

PROGRAM = "python -m torch_ref.export"
FORMATS = ("safetensors", "npz", "pth", "onnx", "pt2", "hub")


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
