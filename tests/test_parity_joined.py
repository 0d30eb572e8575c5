"""Layers that Flax has as one and PyTorch as several: projections of attention in one kernel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.mapping.found import TorchState
from parity.mapping.operations import Pad, read

WIDTH, HEADS = 6, 2
INPUTS = np.random.default_rng(0).normal(size=(2, 4, WIDTH))


class Apart(nn.Module):
    """Attention with three projections, before a gated layer of two."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.q, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.gate, self.up = (nn.Linear(WIDTH, 5, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return torch.tanh(self.gate(x)) * self.up(x)


class Fused(nnx.Module):
    """The same with one projection each; `way` is how queries, keys and values lie in it."""

    def __init__(self, way: str = "qkv") -> None:
        rngs, self.way = nnx.Rngs(0), way
        self.qkv, self.o = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.gate_up = nnx.Linear(WIDTH, 10, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.qkv(x)
        if self.way == "heads":  # each head's queries, keys and values side by side
            parts = jnp.moveaxis(y.reshape(*y.shape[:2], HEADS, 3, -1), 3, 0)
        else:
            parts = (part.reshape(*y.shape[:2], HEADS, -1) for part in jnp.split(y, 3, -1))
        named = dict(zip("vqk" if self.way == "vqk" else "qkv", parts, strict=True))
        q, k, v = named["q"], named["k"], named["v"]
        shares = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(WIDTH // HEADS), -1)
        x = x + self.o(jnp.einsum("bhts,bshd->bthd", shares, v).reshape(x.shape))
        gate, up = jnp.split(self.gate_up(x), 2, -1)
        return jnp.tanh(gate) * up


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return Apart()


def _filled(model: Fused, original: nn.Module) -> Any:
    """A port's own weights, converted by hand."""
    state = {name: value.double().numpy() for name, value in original.state_dict().items()}
    rows = (
        np.arange(3 * WIDTH).reshape(3, HEADS, -1).transpose(1, 0, 2).ravel() if model.way == "heads" else slice(None)
    )
    for layer, names in ((model.qkv, model.way if model.way == "vqk" else "qkv"), (model.o, "o")):
        order = rows if layer is model.qkv else slice(None)
        layer.kernel = nnx.Param(jnp.asarray(np.concatenate([state[f"{n}.weight"] for n in names])[order].T))
        layer.bias = nnx.Param(jnp.asarray(np.concatenate([state[f"{n}.bias"] for n in names])[order]))
    model.gate_up.kernel = nnx.Param(jnp.asarray(np.concatenate([state["gate.weight"], state["up.weight"]]).T))
    return nnx.state(model)


def test_layers_that_flax_has_as_one_are_compared_and_converted(original: nn.Module) -> None:
    report = parity.compare(Fused(), original, INPUTS)
    assert report.exit_code == 0, report
    assert {row.torch_name for row in report.rows if row.name == "qkv"} == {"k.[qkv]"}  # registered first
    state = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    arrays = report.mapping.to_jax(state)
    assert np.array_equal(arrays["qkv/kernel"], np.concatenate([state[f"{n}.weight"] for n in "qkv"]).T)
    assert np.array_equal(arrays["qkv/bias"], np.concatenate([state[f"{n}.bias"] for n in "qkv"]))
    back = report.mapping.to_torch(arrays)
    assert all(np.array_equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("way", ["vqk", "heads"])
def test_their_order_is_that_of_the_ports_own_weights(original: nn.Module, way: str, flax_promotes: None) -> None:
    port = Fused(way)
    report = parity.compare(port, original, INPUTS, variables=_filled(port, original), gradients=False)
    assert report.exit_code == 0, report
    state = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    kernel = np.asarray(_filled(port, original)["qkv"]["kernel"][...])
    arrays = report.mapping.to_jax(state)
    assert np.array_equal(arrays["qkv/kernel"], kernel)
    back = report.mapping.to_torch(arrays)
    assert all(np.array_equal(back[name], state[name]) for name in state)


def test_rows_that_lie_in_no_blocks_move_as_no_operations_say() -> None:
    pieces = {"w": [("a", [0, 2]), ("b", [1])]}
    state = TorchState("Model", {"a": (2, 1), "b": (1, 1)}, joined=pieces)
    assert state.sources("w", np.arange(3).reshape(1, 3), (3, 1)) == ()


def test_another_order_than_the_name_says_is_a_difference_without_weights(original: nn.Module) -> None:
    report = parity.compare(Fused("vqk"), original, INPUTS, gradients=False)
    assert report.first_divergence is not None and report.first_divergence.name == "o"


def test_zeros_around_a_tensor_are_undone_and_read() -> None:
    pad = Pad(1, 2, 1)
    x = np.arange(6.0).reshape(2, 3)
    assert pad.shape(x.shape) == (2, 6) and np.array_equal(pad.undo(pad.apply(x), x.shape), x)
    assert read(pad.to_json()) == pad
