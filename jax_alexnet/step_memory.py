"""What a step of this side holds of each image, told from the shapes alone."""

from math import prod
from typing import Any

import jax

from alexnet_io.data.memory import StepMemory
from jax_alexnet.layer_specs import Conv, Dense, LocalConv, Variant
from jax_alexnet.shapes import trace

_VALUE_BYTES = {"bfloat16": 2, "float64": 8}


def step_memory(
    variant: Variant,
    image_size: int,
    precision: str,
    devices: list[Any],
    processes: int = 1,
    training: bool = True,
    parts: int = 1,
) -> StepMemory:
    """For a step of `variant` on `devices`, those of all processes.

    Args:
        variant: the network.
        image_size: side of its images in pixels.
        precision: as `--precision` says.
        devices: JAX's.
        processes: how many there are.
        training: whether it is a step of training or of evaluation.
        parts: of a batch that are worked on one after the other.
    """
    layers, shape = [], (image_size, image_size, 3)
    for layer, row in zip(variant.layers, trace(variant, image_size), strict=True):
        if isinstance(layer, (Conv, LocalConv, Dense)):
            layers.append((prod(shape), prod(row.output_shape)))
        shape = row.output_shape
    return StepMemory(
        layers,
        _VALUE_BYTES.get(precision, 4),
        share=1 / processes,
        devices=len(devices),
        device_bytes=_device_bytes(devices),
        training=training,
        parts=parts,
    )


def _device_bytes(devices: list[Any]) -> int | None:
    """Memory that JAX may take of a device that has its own; None on CPUs, and where the platform doesn't tell."""
    if devices[0].platform == "cpu":
        return None
    own = next(device for device in devices if device.process_index == jax.process_index())  # others' can't be asked
    return (own.memory_stats() or {}).get("bytes_limit")
