"""What the run computes on and with: devices, precision, and compiler switches."""

import functools
import os
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from alexnet_io.errors import UserError
from jax_alexnet.gpus import listed_gpus


def set_precision(precision: str) -> np.dtype:
    """Pin JAX's arithmetic and return the dtype of activations.

    float32 and float64 are computed in full (JAX's default on GPUs would be TF32); tf32 allows TF32 on GPUs
    that have it and is float32 elsewhere; bfloat16 keeps weights, optimizer state and loss in float32.
    """
    jax.config.update("jax_enable_x64", precision == "float64")
    products = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16", "float64": "float32"}
    jax.config.update("jax_default_matmul_precision", products[precision])
    return {"bfloat16": jnp.dtype(jnp.bfloat16), "float64": jnp.dtype(jnp.float64)}.get(
        precision, jnp.dtype(jnp.float32)
    )


def choose_devices(wanted: str) -> list[Any]:
    """The devices that `--devices` names.

    Args:
        wanted: `all`, a count such as `2`, or ids such as `0,2` (a trailing comma makes one id: `3,`).

    Raises:
        UserError: not of that form, or not there; what exists is listed.
    """
    if jax.process_count() > 1:
        return _of_every_process(wanted)
    devices = jax.devices()
    there = f"{len(devices)} {devices[0].platform} device(s) with ids {', '.join(str(d.id) for d in devices)}"
    if wanted == "all":
        return devices
    words = [word for word in wanted.split(",") if word.strip()]
    if not words or not all(word.strip().isdigit() for word in words):
        raise UserError(f"--devices {wanted!r} is not all, a count or ids such as 0,2; this machine has {there}")
    numbers = [int(word) for word in words]
    if "," not in wanted:
        if not 1 <= numbers[0] <= len(devices):
            raise UserError(f"--devices {wanted} asks for {numbers[0]} devices; this machine has {there}")
        return devices[: numbers[0]]
    by_id = {device.id: device for device in devices}
    missing = [number for number in numbers if number not in by_id]
    if missing:
        raise UserError(f"--devices {wanted}: there is no device {missing[0]}; this machine has {there}")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--devices {wanted} names a device twice; this machine has {there}")
    return [by_id[number] for number in numbers]


def _of_every_process(wanted: str) -> list[Any]:
    """In a run of several processes, `--devices` counts those of each process."""
    processes = jax.process_count()
    own = [[d for d in jax.devices() if d.process_index == i] for i in range(processes)]
    fewest = min(map(len, own))
    count = fewest if wanted == "all" else int(wanted) if wanted.isdecimal() else 0
    if not 1 <= count <= fewest or (wanted == "all" and len({len(devices) for devices in own}) > 1):
        raise UserError(
            f"--devices {wanted}: with several processes it is all, or a count of devices of each process; "
            f"the {processes} processes have {', '.join(str(len(devices)) for devices in own)} device(s)"
        )
    return [device for devices in own for device in devices[:count]]


def check_batch(batch_size: int, devices: int) -> None:
    """Refuse a global batch that the devices can't share evenly."""
    if batch_size % devices:
        lower, upper = batch_size // devices * devices, -(-batch_size // devices) * devices
        near = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(
            f"--batch-size {batch_size} can't be shared evenly by {devices} devices: "
            f"use {near}, or fewer devices with --devices"
        )


def data_mesh(devices: list[Any]) -> Mesh:
    """A mesh of one axis, `data`, over which the batch is split."""
    # Explicit axes, JAX's default for new meshes, would make every array carry its sharding in its type.
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def unusable_gpu() -> str | None:
    """A line for the user when the machine has an NVIDIA GPU that JAX does not use; None otherwise."""
    if jax.default_backend() != "cpu" or os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return None
    gpus = listed_gpus()
    if not gpus:
        return None
    return (
        f"this machine has {gpus[0]}, but JAX can't use it and trains on the CPU. "
        'Install JAX for its CUDA version: pip install "jax-alexnet[cuda12]" (driver 525 or newer) or '
        '"jax-alexnet[cuda13]" (driver 580 or newer), or run `make train`, which chooses by itself'
    )


# On CPUs XLA sends convolutions to a library that is slower here than Eigen; this keeps that library for matrix
# products alone. Experimental: tried once, and left out with a warning by a jaxlib that doesn't know it.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """Options for `jax.jit(compiler_options=...)` on `platform` (`cpu`, `gpu`)."""
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except Exception as error:
        warnings.warn(f"this jaxlib refuses {_CPU_OPTIONS}: convolutions will be slower ({error})", stacklevel=2)
        return {}
    return _CPU_OPTIONS
