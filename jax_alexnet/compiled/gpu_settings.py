"""What is compiled for described GPUs: the settings of `python -m jax_alexnet.gpu_program`."""

from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.settings import setting
from alexnet_io.command_line.train_settings import MODELS
from jax_alexnet.compiled import gpu_compiler


@dataclass(frozen=True)
class GpuSettings:
    """Compile the training step for GPUs that needn't be there, and print what it moves, sends and keeps."""

    EXAMPLES: ClassVar = (("--model two_column --gpu a100 --devices 8", "the step on each of eight A100s"),)

    model: str = setting("single_column", "the network: " + ", ".join(MODELS), choices=MODELS, group="what is compiled")
    gpu: str = setting(
        "h100", "kind of GPU: " + ", ".join(gpu_compiler.GPUS), choices=tuple(gpu_compiler.GPUS), group="GPUs"
    )
    devices: int = setting(8, "GPUs, described as if in one box", minimum=1, maximum=1024, group="GPUs")
    batch_size: int = setting(256, "images a GPU", minimum=1, group="what is compiled")
    precision: str = setting(
        "bfloat16",
        "arithmetic: bfloat16, tf32, float32",
        choices=("bfloat16", "tf32", "float32"),
        group="what is compiled",
    )
    parallel: str = setting(
        "data", "how the GPUs share the work: data, columns, hybrid, zero", group="GPUs", metavar="NAME"
    )
    group_size: int | None = setting(
        None,
        "GPUs that share the fully connected layers (hybrid) or the optimizer's state (zero)",
        minimum=1,
        group="GPUs",
        unset="all",
    )
    image_size: int | None = setting(
        None, "side in pixels", minimum=1, maximum=4096, group="what is compiled", unset="the network's own"
    )
    json: str | None = setting(None, "write everything as JSON to this file", writes="text")
