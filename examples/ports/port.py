"""What a port is: a Flax model that others wrote, beside what it was ported from, both made small and random."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_io.errors import UserError

BONSAI = "https://github.com/jax-ml/bonsai"
FLAXMODELS = "https://github.com/matthias-wright/flaxmodels"


@dataclass(frozen=True)
class Pair:
    """Two models to be compared.

    Attributes:
        flax: the port.
        torch: its reference.
        inputs: arrays in PyTorch's layout.
        settings: more of `parity.compare`'s arguments.
    """

    flax: Any
    torch: nn.Module
    inputs: tuple[NDArray, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """One model of a repository of ports.

    Attributes:
        name: as the command line calls it.
        repository: address of the one that has it.
        module: to be imported from a checkout of it.
        reference: what it is compared with, in words.
        package: of the reference.
        tolerance: what the repository's own tests allow, in words.
        build: makes the pair. Its argument is `module`, imported.
        dtypes: lanes in which the two are meant to be the same function.
    """

    name: str
    repository: str
    module: str
    reference: str
    package: str
    tolerance: str
    build: Callable[[Any], Pair]
    dtypes: tuple[str, ...] = ("float64", "float32")

    def pair(self) -> Pair:
        """The two models.

        Raises:
            UserError: the checkout or the package of the reference is missing.
        """
        torch.manual_seed(0)
        imported(self.package)
        return self.build(imported(self.module, f"give a checkout of {self.repository} with --checkout PATH"))


def imported(name: str, remedy: str = "") -> Any:
    """A module of someone else's.

    Args:
        name: of the module.
        remedy: where it can't be imported; to install the package if none is given.

    Raises:
        UserError: it can't be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = remedy or f"pip install {name.partition('.')[0]}"
        raise UserError(f"{name} can't be imported ({error}): {remedy}") from error


def randomised(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """The same model with all parameters and running statistics drawn anew, none of them 0 or 1 throughout.

    Freshly made models hold biases of zero, scales of one and statistics of an identity, behind which bugs hide.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or name.endswith("inv_freq"):
                continue
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                drawn = 0.5 + drawn.abs()
            elif value.dim() < 2:
                drawn = value.double() + 0.2 * drawn  # around what it was: a scale stays near 1, a bias near 0
            else:
                drawn = scale * drawn / np.sqrt(max(1, value[0].numel()))
            value.copy_(drawn)
    return model


def normal(*shape: int, seed: int = 0) -> NDArray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


class Output(nn.Module):
    """A model of transformers' or diffusers' without its wrapping.

    Args:
        model: whose call returns an object with tensors as attributes.
        outputs: which of them are returned.
        names: of the arguments that the inputs are; in their order if none are given.
        settings: more arguments of the call.
    """

    def __init__(self, model: nn.Module, *outputs: str, names: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__()
        self.model, self.outputs, self.names, self.settings = model, outputs or ("logits",), names, settings

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors."""
        named = dict(zip(self.names, inputs, strict=True)) if self.names else {}
        result = self.model(*(() if self.names else inputs), **named, **self.settings)
        return tuple(getattr(result, name) for name in self.outputs)
