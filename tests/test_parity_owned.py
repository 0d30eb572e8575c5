"""Parameters that a module owns beside its children's: a class token, positions, a scale."""

from typing import Any

import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare


class TorchTokens(nn.Module):
    """Patches with a class token and positions, a block with a scale of its own, the class token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(6, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.randn(1, 6, 4))
        self.block = TorchBlock()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch(x)], 1) + self.pos_embed
        return self.head(self.block(x)[:, 0])


class TorchBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.mlp = nn.Parameter(torch.randn(4)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return x + self.gamma * torch.tanh(self.mlp(mixed))


def mixed(x: Any) -> Any:
    scores = x @ x.transpose(0, 2, 1)
    return linen.softmax(scores) @ x


class Block(linen.Module):
    sign: float = 1.0

    @linen.compact
    def __call__(self, x: Any) -> Any:
        gamma = self.param("gamma", linen.initializers.ones, (4,))
        return x + self.sign * gamma * jnp.tanh(linen.Dense(4, name="mlp")(mixed(x)))


class Tokens(linen.Module):
    sign: float = 1.0
    shifted: bool = False

    @linen.compact
    def __call__(self, x: Any) -> Any:
        token = self.param("cls_token", linen.initializers.zeros, (1, 1, 4))
        positions = self.param("pos_embed", linen.initializers.zeros, (1, 6, 4))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), linen.Dense(4, name="patch")(x)], 1)
        x = x + (jnp.roll(positions, 1, 1) if self.shifted else positions)
        return linen.Dense(3, name="head")(Block(self.sign, name="block")(x)[:, 0])


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.gamma, self.mlp = nnx.Param(jnp.ones(4)), nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.gamma[...] * jnp.tanh(self.mlp(mixed(x)))


class NnxTokens(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patch, self.head = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.cls_token, self.pos_embed = nnx.Param(jnp.zeros((1, 1, 4))), nnx.Param(jnp.zeros((1, 6, 4)))
        self.block = NnxBlock(rngs)

    def __call__(self, x: Any) -> Any:
        x = jnp.concatenate([jnp.tile(self.cls_token[...], (len(x), 1, 1)), self.patch(x)], 1) + self.pos_embed[...]
        return self.head(self.block(x)[:, 0])


@pytest.fixture
def patches(rng: np.random.Generator) -> Any:
    return rng.normal(size=(2, 5, 6))


@pytest.fixture
def reference() -> TorchTokens:
    torch.manual_seed(0)
    return TorchTokens()


@pytest.mark.parametrize("candidate", [Tokens(), NnxTokens(nnx.Rngs(0))], ids=["linen", "nnx"])
def test_a_parents_parameters_are_paired_and_compared(patches, reference, candidate, flax_promotes):
    report = parity.compare(candidate, reference, patches)
    assert report.exit_code == 0, report
    rows = {(row.name, row.torch_name) for row in report.rows if row.stage == "backward:value"}
    assert rows == {("cls_token", "cls_token"), ("pos_embed", "pos_embed"), ("block/gamma", "block.gamma")}


def test_code_that_uses_a_parameter_wrongly_is_found(patches, reference, flax_promotes):
    report = parity.compare(Tokens(shifted=True), reference, patches)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("block/mlp", "input")
    report = parity.compare(Tokens(sign=-1.0), reference, patches)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("head", "input")
    wrong = [row.name for row in report.rows if not row.equal and row.stage == "backward:value"]
    assert wrong == ["block/gamma"]


def test_a_parents_own_values_are_held_to_pytorchs(patches, reference, flax_promotes):
    candidate = NnxTokens(nnx.Rngs(0))
    state = {name: np.asarray(value.detach(), np.float64) for name, value in reference.named_parameters()}
    for layer in ("patch", "head", "block.mlp"):
        module = candidate.block.mlp if layer == "block.mlp" else getattr(candidate, layer)
        module.kernel = nnx.Param(jnp.asarray(state[f"{layer}.weight"].T))
        module.bias = nnx.Param(jnp.asarray(state[f"{layer}.bias"]))
    candidate.block.gamma = nnx.Param(jnp.asarray(state["block.gamma"]))
    candidate.cls_token = nnx.Param(jnp.asarray(state["cls_token"]))
    candidate.pos_embed = nnx.Param(jnp.asarray(state["pos_embed"]))
    report = parity.compare(candidate, reference, patches, variables=nnx.state(candidate))
    assert report.equal, report
    candidate.pos_embed = nnx.Param(jnp.asarray(state["pos_embed"][:, ::-1]))
    report = parity.compare(candidate, reference, patches, variables=nnx.state(candidate))
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("pos_embed", "weights:value")


def test_a_parameter_without_a_partner_is_named(patches, flax_promotes):
    class Without(TorchTokens):
        def __init__(self) -> None:
            super().__init__()
            del self.cls_token
            self.register_buffer("cls_token", torch.zeros(1, 1, 4))

    with pytest.raises(CannotCompare, match="cls_token"):
        parity.compare(Tokens(), Without(), patches)
