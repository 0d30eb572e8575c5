"""PyTorch's layers and parameters in plain lists, which PyTorch itself doesn't see."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare
from parity.reference import torch_containers


class Original(nn.Module):
    """Layers in a list of pairs, scales in a dictionary; another list of what is registered anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [(nn.Linear(3, 3), nn.LayerNorm(3)) for _ in range(2)]
        self.scales = {"one": nn.Parameter(torch.randn(3)), "two": nn.Parameter(torch.randn(3))}
        self.head = nn.Linear(3, 2)
        self.last = [self.head]

    def forward(self, x: Tensor) -> Tensor:
        for (linear, norm), name in zip(self.blocks, self.scales, strict=True):
            x = x + self.scales[name] * norm(linear(x))
        return self.last[0](x)


class Ported(nnx.Module):
    def __init__(self, turned: bool = False) -> None:
        rngs, self.turned = nnx.Rngs(0), turned
        self.linears = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.norms = nnx.List([nnx.LayerNorm(3, epsilon=1e-5, rngs=rngs) for _ in range(2)])
        self.scales = nnx.Dict(one=nnx.Param(jnp.zeros(3)), two=nnx.Param(jnp.zeros(3)))
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> Any:
        for linear, norm, name in zip(self.linears, self.norms, ("one", "two"), strict=True):
            y = norm(linear(x)) * self.scales[name][...]
            x = x - y if self.turned else x + y
        return self.head(x)


X = np.random.default_rng(0).normal(size=(4, 3))


@pytest.mark.usefixtures("flax_promotes")
def test_layers_in_plain_lists_are_compared_and_told() -> None:
    report = parity.compare(Ported(), original := Original(), X, gradients=False)
    assert report.exit_code == 3 and report.equal, report
    (told,) = report.not_exercised
    assert "blocks.0, blocks.1, scales.one, scales.two" in told and "nn.ModuleList" in told
    assert set(report.mapping.layers.values()) >= {"blocks.0.0", "blocks.1.1", "scales.one", "head"}
    assert isinstance(original.blocks, list) and isinstance(original.blocks[0], tuple)  # whose is as it was
    assert original.blocks[0][0].weight.dtype == torch.float32


@pytest.mark.usefixtures("flax_promotes")
def test_a_mistake_between_layers_in_plain_lists_has_its_cause() -> None:
    report = parity.compare(Ported(turned=True), Original(), X, gradients=False)
    row = report.first_divergence
    assert row is not None and (row.name, row.stage) == ("linears/1", "input") and row.cause_keys == ["term_sign"]


def test_lists_of_layers_that_are_registered_are_left_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.same = [model[0]]  # type: ignore[assignment]
    model.above = {"whole": [model]}  # type: ignore[assignment]
    assert torch_containers.registered(model) == (model, [])


def test_layers_among_other_things_are_refused_with_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.pairs = [(nn.Linear(2, 2), "relu")]  # type: ignore[assignment]
    with pytest.raises(CannotCompare, match=r"PyTorch's pairs is a plain tuple .*Hold the layers in nn.ModuleList"):
        torch_containers.registered(model)
