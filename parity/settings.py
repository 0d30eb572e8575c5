"""The settings of every `python -m parity` command, one frozen dataclass each. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_io.errors import UserError
from alexnet_io.settings import one_of, setting

MODELS = (
    "single_column", "two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet", "one_weird_trick",
    "one_weird_trick_lrn", "cifar_18pct", "cifar_13pct", "cifar_11pct",
)  # fmt: skip
DTYPES = ("float64", "float32", "bfloat16")


def chosen_models(name: str) -> list[str]:
    """The models that `--model NAME` means."""
    return list(MODELS) if name == "all" else [name]


def check_model(name: str) -> None:
    """Refuse a model that there isn't, naming the nearest."""
    one_of("--model", name, (*MODELS, "all"))


@dataclass(frozen=True)
class Layers:
    """Compare every layer of JAX's networks with PyTorch's, forward, each on the reference's input."""

    model: str = setting("all", f"one of {', '.join(MODELS)}, or all")
    dtype: str = setting("float64", "float64 decides correctness, float32 and bfloat16 compare precisions")
    seed: int = setting(0, "of weights and images", minimum=0)
    batch: int | None = setting(None, "images; 2 in float64, 4 else", minimum=1)
    images: str | None = setting(None, "folder of real pictures; random images if not given")
    weights: str | None = setting(None, "trained weights (.safetensors or .pth) for one model; drawn if not given")
    json: str | None = setting(None, "write the report as JSON to this file")
    html: str | None = setting(None, "write the report as one HTML page to this file")
    arrays: str | None = setting(None, "write both sides' arrays of the worst layer to this .npz file")

    def __post_init__(self) -> None:
        check_model(self.model)
        one_of("--dtype", self.dtype, DTYPES)
        if self.weights and self.model == "all":
            raise UserError("--weights are one network's: name it with --model")


@dataclass(frozen=True)
class Grads(Layers):
    """Compare every layer's gradients too: backward, each on the reference's cotangent."""


COMMANDS = {
    "layers": "every layer, forward",
    "grads": "every layer, forward and backward",
}
