"""The settings of `python -m jax_alexnet.plan`."""

from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.settings import setting
from alexnet_io.command_line.train_settings import MODELS
from alexnet_io.errors import UserError
from jax_alexnet.compiled import gpu_compiler

PROGRAM = "python -m jax_alexnet.plan"
MOST_DEVICES = 1024
_GPUS = tuple(gpu_compiler.GPUS)
_PRECISIONS = ("bfloat16", "tf32", "float32")


@dataclass(frozen=True)
class PlanSettings:
    """Compile each parallel scheme's step for GPUs that needn't be there; say what it costs and how it scales."""

    EXAMPLES: ClassVar = (
        ("--model two_column --devices 8 --bandwidth 300", "each scheme on 8 GPUs with links of 300 GB/s"),
        ("--global-batch 4096 --plot scaling.png --json plan.json", "how each scales with the same batch on more GPUs"),
    )

    model: str = setting("two_column", "the network: " + ", ".join(MODELS), choices=MODELS, group="what is planned")
    devices: int = setting(8, "GPUs", minimum=1, maximum=MOST_DEVICES, group="GPUs")
    bandwidth: float | None = setting(
        None,
        "GB/s from a GPU to its neighbours in the machine, one direction",
        unset="its data sheet's",
        above=0,
        group="GPUs",
    )
    network_bandwidth: float | None = setting(
        None, "GB/s out of a machine for each of its GPUs, one direction", unset="as --bandwidth", above=0, group="GPUs"
    )
    devices_per_machine: int = setting(8, "GPUs in a machine", minimum=1, group="GPUs")
    batch_size: int = setting(256, "images a GPU", minimum=1, group="what is planned")
    global_batch: int | None = setting(
        None, "images of all GPUs together, instead of --batch-size", minimum=1, group="what is planned"
    )
    gpu: str = setting("h100", "kind of GPU: " + ", ".join(_GPUS), choices=_GPUS, group="GPUs")
    precision: str = setting(
        "bfloat16", "arithmetic: " + ", ".join(_PRECISIONS), choices=_PRECISIONS, group="what is planned"
    )
    group_size: int | None = setting(
        None,
        "GPUs that share the fully connected layers (hybrid) or the optimizer's state (zero)",
        unset="a machine's for hybrid, all for zero",
        minimum=1,
        group="what is planned",
    )
    step_ms: float | None = setting(
        None, "a step measured on one GPU, to scale the modelled work by", above=0, group="the model"
    )
    scaling: bool = setting(True, f"predict how each scheme scales up to {MOST_DEVICES} GPUs, too", group="the model")
    compile: list[int] = setting(
        [1, 2, 4, 8, 16],
        "numbers of GPUs to compile the scaling for; others are extrapolated",
        minimum=1,
        maximum=MOST_DEVICES,
        group="the model",
    )
    published: bool = setting(False, "compare the model with published figures instead", group="the model")
    json: str | None = setting(None, "write everything as JSON to this file", writes="text")
    plot: str | None = setting(None, "draw the scaling into this PNG", writes="binary")

    def __post_init__(self) -> None:
        """Refuse a global batch that can't be divided, and a drawing of nothing."""
        if self.plot and (self.published or not self.scaling):
            raise UserError("--plot draws the scaling: leave out --no-scaling and --published")
        if self.global_batch is not None and self.global_batch % self.devices:
            least = max(1, self.global_batch // self.devices) * self.devices
            raise UserError(
                f"--global-batch {self.global_batch} can't be divided among {self.devices} GPUs: "
                f"use {least} or {least + self.devices}, or another number of --devices"
            )

    @property
    def batch(self) -> str:
        """The batch in words."""
        return (
            f"{self.batch_size:,} images a GPU" if self.global_batch is None else f"{self.global_batch:,} images in all"
        )

    def images(self, devices: int) -> int:
        """Images a GPU, with so many GPUs; 0 where the global batch can't be divided."""
        if self.global_batch is None:
            return self.batch_size
        return 0 if self.global_batch % devices else self.global_batch // devices
