"""What a step of this side holds of each image, told from the shapes alone."""

from typing import Any

import torch
from torch import Tensor, nn

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.memory import StepMemory
from torch_ref import launch
from torch_ref.network import CHANNELS
from torch_ref.processes import Processes

_VALUE_BYTES = {"bfloat16": 2, "float64": 8}


def step_memory(network: nn.Module, settings: CompleteSettings, group: Processes) -> StepMemory:
    """For training by `settings`.

    Args:
        network: on the meta device, in which nothing is computed; it is used up.
        settings: the run's.
        group: the run's processes.
    """
    layers: list[tuple[int, int]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        layers.append((inputs[0].numel(), output.numel()))

    for module in network.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(note)
    side = settings.image_size
    with torch.no_grad():
        network.eval()(torch.empty(1, CHANNELS, side, side, device="meta"))
    on_gpu = group.device.type == "cuda"
    return StepMemory(
        layers,
        _VALUE_BYTES.get(settings.precision, 4),
        share=launch.local_count() / group.count,
        devices=group.count,
        device_bytes=torch.cuda.get_device_properties(group.device).total_memory if on_gpu else None,
        parts=settings.accumulate,
    )
