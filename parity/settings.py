"""The settings of every `python -m parity` command, one frozen dataclass each. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from alexnet_io.command_line.settings import one_of, setting
from alexnet_io.command_line.train_settings import SCHEDULES
from alexnet_io.errors import UserError

MODELS = (
    "single_column", "two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet", "one_weird_trick",
    "one_weird_trick_lrn", "cifar_18pct", "cifar_13pct", "cifar_11pct", "cifar_80sec",
)  # fmt: skip
RECIPES = ("blog", "paper", "caffe", "torchvision", "cifar")
DTYPES = ("float64", "float32", "bfloat16")


def chosen_models(name: str) -> list[str]:
    """The models that `--model NAME` means."""
    return list(MODELS) if name == "all" else [name]


def interpreter_of(framework: str) -> Any:
    """The setting of a Python that has a framework."""
    words = f"interpreter of the environment that holds {framework}"
    return setting(None, words, group="environments", unset="this one", metavar="PATH")


def check_model(name: str) -> None:
    """Refuse a model that there isn't, naming the nearest."""
    one_of("--model", name, (*MODELS, "all"))


@dataclass(frozen=True)
class Layers:
    """Compare every layer of JAX's networks with PyTorch's, forward, each on the reference's input."""

    EXAMPLES: ClassVar = (
        ("--model two_column --html report.html", "one network, with a page to look at"),
        ("--dtype float32 --images pictures/", "all of them in float32, on real pictures"),
    )

    model: str = setting("all", f"one of {', '.join(MODELS)}, or all", group="what is compared", metavar="NAME")
    dtype: str = setting(
        "float64",
        "float64 decides correctness, float32 and bfloat16 compare precisions",
        group="what is compared",
        metavar="NAME",
    )
    seed: int = setting(0, "of weights and images", minimum=0, group="input")
    batch: int | None = setting(None, "images", minimum=1, group="input", unset="2 in float64, 4 else")
    images: str | None = setting(
        None, "folder of real pictures", group="input", unset="random images", metavar="FOLDER"
    )
    weights: str | None = setting(
        None,
        "trained weights for one model: a .safetensors or .pth file, or a name that python -m "
        "jax_alexnet.weights lists",
        group="input",
        unset="drawn at random",
        metavar="FILE|NAME",
    )
    all: bool = setting(False, "print every comparison, not only what differs")
    json: str | None = setting(None, "write the report as JSON to this file", writes="text")
    html: str | None = setting(None, "write the report as one HTML page to this file", writes="text")
    arrays: str | None = setting(None, "write both sides' arrays of the worst layer to this .npz file", writes="binary")

    def __post_init__(self) -> None:
        check_model(self.model)
        one_of("--dtype", self.dtype, DTYPES)
        if self.weights and self.model == "all":
            raise UserError("--weights are one network's: name it with --model")


@dataclass(frozen=True)
class Grads(Layers):
    """Compare every layer's gradients too: backward, each on the reference's cotangent."""


@dataclass(frozen=True)
class Train:
    """Compare optimizers step by step, and whole training runs."""

    EXAMPLES: ClassVar = (
        ("--model two_column --recipe paper --dtype float64", "one optimizer step by step, without long runs"),
    )

    model: str = setting("cifar_18pct", f"one of {', '.join(MODELS)}, or all", metavar="NAME")
    recipe: str = setting("all", f"one of {', '.join(RECIPES)}, or all", metavar="NAME")
    dtype: str = setting(
        "all", "float64: optimizers and ten free steps; float32: long runs in their envelope; or all", metavar="NAME"
    )
    steps: int = setting(200, "of the float32 run that is held to the envelope; 0 leaves it out", minimum=0)
    runs: int = setting(5, "float32 runs of each framework, started 1 ulp apart; fewer than 4 prove little", minimum=4)
    batch: int = setting(4, "images a step", minimum=1)
    image_size: int | None = setting(None, "side in pixels", minimum=1, unset="the smallest that suits the network")
    seed: int = setting(0, "of weights, images, labels and dropout masks", minimum=0)
    all: bool = setting(False, "print every comparison, not only what differs")
    json: str | None = setting(None, "write the report as JSON to this file", writes="text")
    html: str | None = setting(None, "write the report as one HTML page to this file", writes="text")

    def __post_init__(self) -> None:
        check_model(self.model)
        one_of("--recipe", self.recipe, (*RECIPES, "all"))
        one_of("--dtype", self.dtype, ("float64", "float32", "all"))


@dataclass(frozen=True)
class Runs:
    """Run both training programs on the same weights, data and draws, and compare all that they do."""

    EXAMPLES: ClassVar = (
        ("--recipe paper --schedule plateau", "one recipe, with one schedule"),
        ("--recipe all --no-stops", "all of them, straight through"),
    )

    model: str = setting("cifar_18pct", f"one of {', '.join(MODELS)}", metavar="NAME")
    recipe: str = setting("all", f"one of {', '.join(RECIPES)}, or all", metavar="NAME")
    schedule: str | None = setting(
        None,
        f"one of {', '.join(SCHEDULES)}, or all",
        unset="another one for each recipe, so that all are run",
        metavar="NAME",
    )
    data: str | None = setting(
        None, "images, as for training: folder:PATH and so on", unset="made up", metavar="SOURCE"
    )
    image_size: int | None = setting(None, "side in pixels", minimum=1, unset="the smallest that suits the network")
    stops: bool = setting(True, "also kill and stop both programs at every step, and resume them")
    seed: int = setting(0, "of weights, order and draws", minimum=0)
    json: str | None = setting(None, "write what was compared as JSON to this file", writes="text")

    def __post_init__(self) -> None:
        one_of("--model", self.model, MODELS)
        one_of("--recipe", self.recipe, (*RECIPES, "all"))
        if self.schedule is not None:
            one_of("--schedule", self.schedule, (*SCHEDULES, "all"))


@dataclass(frozen=True)
class Data:
    """Compare decoding, resizing, normalisation, augmentation and learning rates."""

    EXAMPLES: ClassVar = (("--images pictures/ --pictures 50", "decoding of fifty real pictures, too"),)

    images: str | None = setting(None, "folder of real pictures; without it decoding isn't exercised", metavar="FOLDER")
    pictures: int = setting(16, "how many of them are read, spread over the folder", minimum=1)
    dtype: str = setting("all", "of the networks' input: float64, float32 or both (all)", metavar="NAME")
    seed: int = setting(0, "of made-up pixels and of crops, flips and colour noise", minimum=0)
    all: bool = setting(False, "print every comparison, not only what differs")
    json: str | None = setting(None, "write the report as JSON to this file", writes="text")
    html: str | None = setting(None, "write the report as one HTML page to this file", writes="text")

    def __post_init__(self) -> None:
        one_of("--dtype", self.dtype, ("float64", "float32", "all"))


@dataclass(frozen=True)
class Mutants:
    """Plant known bugs, one at a time, and see whether the harness finds and names them."""

    EXAMPLES: ClassVar = (("--only lrn,pool --model cifar_18pct", "planted bugs of two kinds in one network"),)

    only: str | None = setting(None, "parts of mutants' names, separated by commas: only these run", metavar="PARTS")
    model: str = setting(
        "all", "only bugs that are planted into this network, each into the one that shows it best", metavar="NAME"
    )
    dtype: str = setting(
        "all", "only bugs that are looked for in this precision: float64, float32, bfloat16 or all", metavar="NAME"
    )
    json: str | None = setting(None, "write the outcomes as JSON to this file", writes="text")
    html: str | None = setting(None, "write the outcomes as one HTML page to this file", writes="text")

    def __post_init__(self) -> None:
        check_model(self.model)
        one_of("--dtype", self.dtype, (*DTYPES, "all"))


@dataclass(frozen=True)
class Clean:
    """Run the harness where there is no bug, over models, precisions, seeds and image sizes: does it cry wolf?"""

    EXAMPLES: ClassVar = (("--runs 40 --json clean.json", "a fifth of them"),)

    runs: int = setting(200, "how many; models turn fastest, then precisions, then gradients", minimum=1)
    seed: int = setting(0, "of the first run; each has its own", minimum=0)
    json: str | None = setting(None, "write the outcomes as JSON to this file", writes="text")


@dataclass(frozen=True)
class Compare:
    """Compare any Flax module, of Linen or nnx, with the PyTorch module it was ported from."""

    EXAMPLES: ClassVar = (
        ("--flax port:Net --torch original:net --shape 2,3,32,32", "two modules in this environment"),
        ("--flax port:Net --torch original:net --inputs x.npy --torch-python old/bin/python", "PyTorch in another one"),
        ("--flax port:Net --torch original:net --shape 2,3,32,32 --save-mapping net.json", "and keep the converter"),
    )

    flax: str | None = setting(
        None, "package.module:attribute of the Flax module, or of what makes it", group="models", metavar="MODULE:NAME"
    )
    torch: str | None = setting(
        None,
        "package.module:attribute of the PyTorch module, or of what makes it",
        group="models",
        metavar="MODULE:NAME",
    )
    shape: str | None = setting(
        None, "shape of a random input in PyTorch's layout, such as 2,3,32,32", group="input", metavar="N,C,H,W"
    )
    inputs: str | None = setting(
        None, ".npy or .npz file with the inputs in PyTorch's layout, instead of --shape", group="input", metavar="FILE"
    )
    dtype: str = setting(
        "float64",
        "float64 decides correctness, float32 and bfloat16 compare precisions",
        group="what is compared",
        metavar="NAME",
    )
    gradients: bool = setting(True, "compare backward passes too", group="what is compared")
    mapping: str | None = setting(
        None,
        "JSON file: Flax path to PyTorch path of layers that can't be paired otherwise; or what --save-mapping wrote, "
        "whose weights are then compared, too",
        group="models",
        metavar="FILE",
    )
    save_mapping: str | None = setting(
        None, "write which weights became which, and how, as JSON to this file; see convert", writes="text"
    )
    jax_python: str | None = interpreter_of("JAX")
    torch_python: str | None = interpreter_of("PyTorch")
    seed: int = setting(0, "of weights, inputs and cotangents", minimum=0, group="input")
    all: bool = setting(False, "print every comparison, not only what differs")
    json: str | None = setting(None, "write the report as JSON to this file", writes="text")
    html: str | None = setting(None, "write the report as one HTML page to this file", writes="text")
    arrays: str | None = setting(None, "write both sides' arrays of the worst layer to this .npz file", writes="binary")

    def __post_init__(self) -> None:
        one_of("--dtype", self.dtype, DTYPES)
        for name in ("flax", "torch"):
            value = getattr(self, name)
            if value is None or ":" not in value:
                raise UserError(f"--{name} is needed, in the form package.module:attribute")
        if (self.shape is None) == (self.inputs is None):
            raise UserError("give the inputs with --shape N,C,H,W or with --inputs FILE, one of the two")


@dataclass(frozen=True)
class Convert:
    """Convert weights by the mapping that a comparison has found (compare --save-mapping)."""

    EXAMPLES: ClassVar = (
        ("--mapping net.json --weights net.safetensors --output flax.safetensors", "PyTorch's weights for JAX"),
        ("--mapping net.json --weights flax.npz --output net.safetensors --to torch", "and back"),
    )

    mapping: str | None = setting(None, "JSON file that compare --save-mapping wrote; needed", metavar="FILE")
    weights: str | None = setting(
        None,
        "state dict in a .safetensors, .npz or PyTorch file (.pth, .pt, .ckpt, .bin); with --to torch JAX's arrays by "
        "path; needed",
        metavar="FILE",
    )
    output: str | None = setting(
        None, ".safetensors or .npz file, whose keys are JAX's paths or the state dict's names; needed", writes="binary"
    )
    to: str = setting("jax", "jax or torch: which side's weights are made", metavar="SIDE")

    def __post_init__(self) -> None:
        one_of("--to", self.to, ("jax", "torch"))
        for name in ("mapping", "weights", "output"):
            if not getattr(self, name):
                raise UserError(f"--{name} is needed: name a file")
        if not str(self.output).endswith((".safetensors", ".npz")):
            raise UserError(f"--output {self.output} must end in .safetensors or .npz")


COMMANDS = {
    "layers": "every layer, forward",
    "grads": "every layer, forward and backward",
    "train": "optimizer steps and trajectories",
    "runs": "both training programs, twinned: every step, row, evaluation, checkpoint and resumption",
    "data": "decoding, preprocessing, augmentation and learning rates",
    "mutants": "planted bugs: does the harness find them?",
    "clean": "no bugs, many seeds: does the harness cry wolf?",
    "compare": "any Flax and PyTorch model, in one or two environments",
    "convert": "weights, by the mapping that a comparison has found",
    "throughput": "images a second of both frameworks, in alternation",
    "profile": "time by layer in both frameworks",
    "gpu": "all that only a GPU can show, in one call",
}
