"""The settings of `parity throughput` and `parity profile`. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.settings import one_of, setting
from alexnet_io.errors import UserError
from jax_alexnet.compiled.gpu_compiler import GPUS
from parity.settings import MODELS, interpreter_of

PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Throughput:
    """Time both frameworks in alternation, each in a process of its own, and say who is faster and how surely."""

    EXAMPLES: ClassVar = (
        ("--model two_column --precision bfloat16 --html speed.html", "both frameworks, plain and tuned"),
        ("--mode infer --frameworks jax --budget-seconds 120", "one of them, in two minutes"),
        ("--mode input --data folder:pictures", "reading and filling the cache"),
    )

    model: str = setting("single_column", f"one of {', '.join(MODELS)}", group="what is timed", metavar="NAME")
    image_size: int | None = setting(
        None, "side in pixels", minimum=1, group="what is timed", unset="the network's own"
    )
    batch_size: int = setting(128, "images a step, over all devices", minimum=1, group="what is timed")
    devices: str = setting(
        "1",
        "numbers of devices to compare, such as 1, 1,2,4 or 1,all; all for 1, 2, 4, ... to all there are",
        group="what is timed",
        metavar="N,...",
    )
    precision: str = setting(
        "float32",
        "float32, tf32 or bfloat16; weights and optimizer stay float32",
        group="what is timed",
        metavar="NAME",
    )
    mode: str = setting(
        "train",
        "train (whole steps with the optimizer), infer, or input (reading and filling the cache, and training from it)",
        group="what is timed",
        metavar="NAME",
    )
    frameworks: str = setting("jax,torch", "jax, torch or both", group="what is timed", metavar="NAMES")
    style: str = setting(
        "both",
        "plain (as users write it), tuned (every trick on both sides) or both",
        group="what is timed",
        metavar="NAME",
    )
    threads: int | None = setting(
        None, "CPU threads of each process", minimum=1, group="what is timed", unset="all cores"
    )
    rounds: int = setting(
        10,
        "blocks of each rival in a pair; the two change places from one to the next",
        minimum=2,
        group="how it is timed",
    )
    warmup: int = setting(10, "steps before the first block", minimum=1, group="how it is timed")
    block_seconds: float = setting(
        1.0,
        "a block has as many steps as fill this time, at least one",
        above=0.0,
        group="how it is timed",
        metavar="SECONDS",
    )
    check_layers: bool = setting(True, "compare every layer at this precision first", group="how it is timed")
    budget_seconds: float | None = setting(
        None,
        "end within this time: rounds and what matters less are cut, and the report says which",
        above=0.0,
        group="how it is timed",
        metavar="SECONDS",
    )
    profile: bool = setting(
        False, "time every layer alone at the end, as `parity profile` does", group="how it is timed"
    )
    jax_python: str | None = interpreter_of("JAX")
    torch_python: str | None = interpreter_of("PyTorch")
    data: str | None = setting(
        None, "input: folder:PATH or imagenet:PATH", group="input mode", unset="made-up images", metavar="SOURCE"
    )
    data_dir: str = setting(
        "data", "input: where data sets lie that were fetched or prepared earlier", group="input mode", metavar="DIR"
    )
    cache_dir: str | None = setting(
        None, "input: where decoded images are kept", group="input mode", unset="the user's cache folder", metavar="DIR"
    )
    holdout: float | None = setting(
        None,
        "input: share of a folder without test/ or val/ that is kept for testing",
        above=0,
        below=1,
        group="input mode",
        metavar="SHARE",
    )
    images: int = setting(256, "input: how many are made up without --data", minimum=2, group="input mode")
    json: str | None = setting(None, "write everything measured as JSON to this file", writes="text")
    html: str | None = setting(None, "write one HTML page with charts to this file", writes="text")
    trace: str | None = setting(
        None, "leave a profiler's trace of JAX's tuned steps in this directory", group="files to write", metavar="DIR"
    )

    def __post_init__(self) -> None:
        one_of("--model", self.model, MODELS)
        one_of("--precision", self.precision, PRECISIONS)
        one_of("--mode", self.mode, ("train", "infer", "input"))
        if self.data and self.mode != "input":
            raise UserError(f"--data is for --mode input: --mode {self.mode} makes its own images")
        if self.mode == "input" and (self.trace or self.profile):
            raise UserError("--trace and --profile are for --mode train and infer: leave them out")
        one_of("--style", self.style, ("plain", "tuned", "both"))
        for name in self.frameworks.split(","):
            one_of("--frameworks", name, ("jax", "torch"))


@dataclass(frozen=True)
class Profile:
    """Time every layer of both frameworks alone, or read the GPU program of the training step by layer (--gpu)."""

    EXAMPLES: ClassVar = (
        ("--model two_column --precision bfloat16", "both frameworks on this machine"),
        ("--gpu h100 --devices 8 --html profile.html", "what XLA compiles for eight of them"),
    )

    model: str = setting("single_column", f"one of {', '.join(MODELS)}", group="what is timed", metavar="NAME")
    image_size: int | None = setting(
        None, "side in pixels", minimum=1, group="what is timed", unset="the network's own"
    )
    batch_size: int | None = setting(
        None, "images, 32 if not given; with --gpu on each GPU, 256", minimum=1, group="what is timed"
    )
    precision: str | None = setting(
        None,
        "float32, tf32 or bfloat16; float32 if not given, and with --gpu bfloat16",
        group="what is timed",
        metavar="NAME",
    )
    frameworks: str = setting("jax,torch", "jax, torch or both", group="what is timed", metavar="NAMES")
    style: str = setting(
        "tuned", "of PyTorch: plain or tuned; JAX's layers are this repository's", group="what is timed", metavar="NAME"
    )
    threads: int | None = setting(
        None, "CPU threads of each process", minimum=1, group="what is timed", unset="all cores"
    )
    gpu: str | None = setting(
        None,
        "h100, a100 or v100: what XLA compiles for it, with modelled times; no GPU is needed and nothing is run",
        group="a GPU that isn't there",
        metavar="NAME",
    )
    devices: int = setting(8, "GPUs in one box, with --gpu", minimum=1, maximum=64, group="a GPU that isn't there")
    parallel: str = setting(
        "data",
        "how the GPUs share the work, with --gpu: data, columns, hybrid or zero",
        group="a GPU that isn't there",
        metavar="NAME",
    )
    jax_python: str | None = interpreter_of("JAX")
    torch_python: str | None = interpreter_of("PyTorch")
    json: str | None = setting(None, "write everything as JSON to this file", writes="text")
    html: str | None = setting(None, "write one HTML page with a chart to this file", writes="text")

    def __post_init__(self) -> None:
        one_of("--model", self.model, MODELS)
        one_of("--style", self.style, ("plain", "tuned"))
        one_of("--parallel", self.parallel, ("data", "columns", "hybrid", "zero"))
        if self.precision is not None:
            one_of("--precision", self.precision, PRECISIONS)
        if self.gpu is not None:
            one_of("--gpu", self.gpu, tuple(GPUS))
        for name in self.frameworks.split(","):
            one_of("--frameworks", name, ("jax", "torch"))


@dataclass(frozen=True)
class OnGpu:
    """Ask a machine all that only a GPU can answer, the most valuable first; the time is kept, whatever breaks."""

    EXAMPLES: ClassVar = (
        ("--output bench --seconds 500", "everything, in under nine minutes"),
        ("--parts speed,kernels --models two_column", "two kinds of questions about one network"),
        ("--models cifar_80sec --batch-size 16 --block-seconds 0.1 --seconds 300", "a rehearsal on a CPU"),
    )

    output: str = setting("bench", "folder for results.json and index.html", group="where to", metavar="DIR")
    seconds: float = setting(
        500.0, "end within this time: parts get their share of it", above=0.0, group="how much", metavar="SECONDS"
    )
    parts: str = setting(
        "all",
        "of the parts: names or what names begin with (machine, layers, speed, kernels, tests, input, alone), or all",
        group="what is asked",
        metavar="NAME,...",
    )
    models: str = setting(
        "single_column,two_column", f"of {', '.join(MODELS)}", group="what is asked", metavar="NAME,..."
    )
    batch_size: int = setting(1024, "images a step", minimum=1, group="what is asked")
    precision: str = setting(
        "bfloat16", "of the main measurements: float32, tf32 or bfloat16", group="what is asked", metavar="NAME"
    )
    block_seconds: float = setting(
        1.0, "a timed block has as many steps as fill this time", above=0.0, group="how much", metavar="SECONDS"
    )
    modelled: str = setting(
        "h100", "whose modelled times stand beside measured kernels: h100, a100, v100 or p100", group="what is asked",
        metavar="NAME",
    )  # fmt: skip

    def __post_init__(self) -> None:
        one_of("--precision", self.precision, PRECISIONS)
        for name in self.models.split(","):
            one_of("--models", name, MODELS)
        one_of("--modelled", self.modelled, tuple(GPUS))
