"""The settings of `python -m jax_alexnet.export`. Imports no framework."""

from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.export_settings import NetworkToExport, place_setting

PROGRAM = "python -m jax_alexnet.export"
FORMATS = ("safetensors", "npz", "pth", "onnx", "stablehlo", "hub")


@dataclass(frozen=True)
class ExportSettings(NetworkToExport):
    """Write a trained network to one file, with all that predicting needs: its input, its classes' names.

    Every export is compared with its source, on a few pictures in float32, before it is put in place.
    """

    EXAMPLES: ClassVar = (
        (
            "--run runs/cifar --to cifar.safetensors",
            "then: python -m jax_alexnet.predict --weights cifar.safetensors x.png",
        ),
        ("--run runs/cifar --to cifar.onnx", "the network itself for ONNX Runtime and others, batches of any size"),
        ("--weights cifar_18pct --to cifar.stablehlo", "the same for jax.export.deserialize(...).call(images)"),
        ("--run runs/cifar --to cifar.pth --checkpoint newest", "a state dict for PyTorch, under state_dict"),
        ("--run runs/cifar --to cifar/", "a folder for a model hub, which --weights cifar/ reads"),
    )

    format: str | None = place_setting(None, ", ".join(FORMATS), choices=FORMATS, unset="as the ending of --to says")
    home: str = place_setting(
        "torch_ref",
        "of weights, whose names and layouts: flax, torch_ref, torchvision",
        choices=("flax", "torch_ref", "torchvision"),
    )
