"""The smallest network with dropout in both frameworks, and what a step of the reference needs around it."""

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import layer_specs as specs
from torch_ref import augment
from torch_ref.dropout_masks import DropoutMasks
from torch_ref.layers import Dropout
from torch_ref.processes import Processes
from torch_ref.resolved_settings import resolve
from torch_ref.run_setup import Setup
from torch_ref.schedules import Constant, Plateau, Schedule, plateau

SIDE, UNITS, CLASSES = 6, 108, 7  # as many pixels, with three channels, as hidden units
WEIGHT = 2.0**-6
RATES = {"drop1": 0.5, "drop2": 0.2}
TABLE = specs.Variant(
    "tiny",
    "dropout on the pixels and on hidden units",
    SIDE,
    CLASSES,
    "paper",
    (
        specs.Dropout("drop1", RATES["drop1"]),
        specs.Dense("fc1", UNITS),
        specs.Relu("relu1"),
        specs.Dropout("drop2", RATES["drop2"]),
        specs.Dense("fc2", None),
    ),
)
# Options of XLA for what runs for a thousandth of a second and should not take seconds to compile.
QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}


def complete_settings(**words: Any) -> CompleteSettings:
    """Settings of a run with these words among them; the rest are the blog's, on images that are made up."""
    return resolve(TrainSettings(**{"recipe": "blog", "data": "synthetic", **words}))


class TorchNetwork(nn.Module):
    """`TABLE` in PyTorch, with small positive weights."""

    def __init__(self) -> None:
        super().__init__()
        self.drop1, self.drop2 = (Dropout(rate) for rate in RATES.values())
        self.fc1, self.fc2 = nn.Linear(SIDE * SIDE * 3, UNITS), nn.Linear(UNITS, CLASSES)
        for parameter in self.parameters():
            nn.init.constant_(parameter, WEIGHT)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images (N, 3, height, width)."""
        return self.fc2(self.drop2(torch.relu(self.fc1(self.drop1(images).flatten(1)))))


class OneOfSeveral(Processes):
    """A process without the others: what all have is what it has."""

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Its own values."""
        return values


def torch_setup(
    network: nn.Module,
    settings: CompleteSettings,
    *,
    examples: int,
    rank: int = 0,
    count: int = 1,
    schedule: Schedule | None = None,
    optimizer: Optimizer | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Setup:
    """What a training step needs, in float64, of a run on `examples` training images that aren't there."""
    optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=1.0)
    schedule, arrays = schedule or Constant(), arrays or {}
    return Setup(
        settings=settings,
        group=OneOfSeveral(rank, count, torch.device("cpu")),
        data=SimpleNamespace(train=range(examples)),  # pyright: ignore[reportArgumentType]
        network=network,
        trained=network,
        optimizer=optimizer,
        masks=DropoutMasks(network, settings.seed),
        draw=functools.partial(augment.draw, settings),
        schedule=schedule,
        plateau=plateau(schedule, optimizer) if isinstance(schedule, Plateau) else None,
        arrays=arrays,
        statistics={name: torch.tensor(value).double() for name, value in {**arrays, "zero": np.zeros(())}.items()},
    )
