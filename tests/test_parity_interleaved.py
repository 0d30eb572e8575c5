"""Projections in one layer block by block, as in GPT-NeoX, beside a layer for each: on either side."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

import parity
from parity.comparison.interleaved import Pattern, blocks, pattern

WIDTH, HEADS = 6, 2
INPUTS = np.random.default_rng(0).normal(size=(2, 4, WIDTH))


class InHeads(nn.Module):
    """Each head's query, key and value side by side, taken apart in the way of `way`; heads of keys may be fewer."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.qkv = way, nn.Linear(WIDTH, 3 * WIDTH if way != "grouped" else 2 * 3 * 4)
        self.out = nn.Linear(WIDTH if way != "grouped" else 12, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(x)
        if self.way == "neox":
            q, k, v = y.view(*x.shape[:2], HEADS, -1).chunk(3, -1)
        elif self.way == "bloom":
            y = y.view(*x.shape[:2], HEADS, 3, -1)
            q, k, v = y[..., 0, :], y[..., 1, :], y[..., 2, :]
        elif self.way == "innermost":
            q, k, v = (y.clamp(-50, 50) * 1.5).reshape(*x.shape[:2], HEADS, -1, 3).unbind(-1)
        else:  # two queries to a key, as in Falcon
            y = y.view(*x.shape[:2], 2, 4, 3)
            q, k, v = y[..., :-2, :].flatten(2, 3), *(y[..., i, :].repeat_interleave(2, 2) for i in (2, 3))
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
        return self.out(y.transpose(1, 2).flatten(2))


class Apart(nnx.Module):
    """The same with a layer for each; `wrong` splits the heads otherwise."""

    def __init__(self, way: str, wrong: bool = False) -> None:
        rngs, grouped, self.scale, self.wrong = nnx.Rngs(0), way == "grouped", 1.5 if way == "innermost" else 1, wrong
        self.dim, self.q = 3, nnx.Linear(WIDTH, 12 if grouped else WIDTH, rngs=rngs)
        self.k, self.v = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(2))
        self.out = nnx.Linear(12 if grouped else WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        def split(y: jax.Array) -> jax.Array:
            y = y * self.scale
            return y.reshape(*y.shape[:-1], self.dim, -1).mT if self.wrong else y.reshape(*y.shape[:-1], -1, self.dim)

        q, k, v = (split(layer(x)) for layer in (self.q, self.k, self.v))
        k, v = (jnp.repeat(each, q.shape[2] // k.shape[2], 2) for each in (k, v))
        shares = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(self.dim), -1)
        return self.out(jnp.einsum("bhts,bshd->bthd", shares, v).reshape(*x.shape[:2], -1))


def _original(way: str) -> nn.Module:
    torch.manual_seed(0)
    return InHeads(way)


@pytest.mark.parametrize("way", ["neox", "bloom", "innermost", "grouped"])
def test_a_layer_of_blocks_is_compared_with_a_layer_for_each_and_converted(way: str) -> None:
    original = _original(way)
    report = parity.compare(Apart(way), original, INPUTS, gradients=way == "neox")
    assert report.exit_code == 0, report
    state = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    arrays = report.mapping.to_jax(state)
    if way == "neox":
        own = state["qkv.weight"].reshape(HEADS, 3, -1, WIDTH)
        assert np.array_equal(arrays["k/kernel"], own[:, 1].reshape(WIDTH, WIDTH).T)
    back = parity.Mapping.from_json(report.mapping.to_json()).to_torch(arrays)
    assert all(np.array_equal(back[name], state[name]) for name in state)


def test_a_mistake_behind_them_is_found_there() -> None:
    report = parity.compare(Apart("neox", wrong=True), _original("neox"), INPUTS)
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("out", "input")
    assert first.cause_keys and all(row.name == "out" for row in report.divergences)


def test_own_weights_that_were_converted_as_if_side_by_side_are_found_in_the_weights() -> None:
    port, original = Apart("bloom"), _original("bloom")
    state = {name: tensor.double().numpy() for name, tensor in original.state_dict().items()}
    for i, layer in enumerate((port.q, port.k, port.v)):
        layer.kernel = nnx.Param(jnp.asarray(state["qkv.weight"][WIDTH * i : WIDTH * (i + 1)].T))
        layer.bias = nnx.Param(jnp.asarray(state["qkv.bias"][WIDTH * i : WIDTH * (i + 1)]))
    port.out.kernel, port.out.bias = (nnx.Param(jnp.asarray(state[f"out.{n}"].T)) for n in ("weight", "bias"))
    report = parity.compare(port, original, INPUTS, variables=nnx.state(port), gradients=False)
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("q", "weights:kernel")


class TorchApart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.v, self.q, self.k, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class NnxInHeads(nnx.Module):
    def __init__(self, way: str = "sliced", wrong: bool = False) -> None:
        rngs, self.way, self.wrong = nnx.Rngs(0), way, wrong
        self.qkv, self.out = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return _attention(self.qkv(x), x, self.way, self.wrong, self.out)


class LinenInHeads(linen.Module):
    way: str = "split"
    wrong: bool = False

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        axes = (HEADS, 3, WIDTH // HEADS) if self.way == "axes" else 3 * WIDTH
        y = linen.DenseGeneral(axes, name="qkv")(x)
        return _attention(y, x, self.way, self.wrong, linen.Dense(WIDTH, name="out"))


def _attention(y: jax.Array, x: jax.Array, way: str, wrong: bool, out: Any) -> jax.Array:
    y = y.reshape(*x.shape[:2], HEADS, 3, -1) if way != "split" else y.reshape(*x.shape[:2], HEADS, -1)
    q, k, v = jnp.split(y, 3, -1) if way == "split" else (y[:, :, :, i] for i in range(3))
    q, k = (k, q) if wrong else (q, k)
    shares = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(WIDTH // HEADS), -1)
    return out(jnp.einsum("bhts,bshd->bthd", shares, v).reshape(x.shape))


@pytest.mark.parametrize("way", ["sliced", "split", "axes"])
def test_layers_that_jax_has_as_one_in_blocks_are_compared_and_converted(way: str) -> None:
    torch.manual_seed(0)
    original, port = TorchApart(), NnxInHeads() if way == "sliced" else LinenInHeads(way)
    report = parity.compare(port, original, INPUTS, gradients=way == "sliced")
    assert report.exit_code == 0, report
    state = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    arrays = report.mapping.to_jax(state)
    own = np.stack([state[f"{n}.weight"].reshape(HEADS, -1, WIDTH) for n in "qkv"], 1)
    kernel = next(array for name, array in arrays.items() if name.endswith("qkv/kernel"))
    assert np.array_equal(kernel.reshape(WIDTH, -1), own.reshape(-1, WIDTH).T)
    back = parity.Mapping.from_json(report.mapping.to_json()).to_torch(arrays)
    assert all(np.array_equal(back[name], state[name]) for name in state)


def test_a_mistake_behind_one_layer_in_blocks_is_found_there() -> None:
    torch.manual_seed(0)
    first = parity.compare(NnxInHeads(wrong=True), TorchApart(), INPUTS).first_divergence
    assert first is not None and (first.name, first.stage) == ("out", "input") and first.cause_keys


def test_patterns_are_told_from_places() -> None:
    assert pattern(np.array([2, 3, 8, 9]), 12) == Pattern(2, 4, 6)
    assert pattern(np.array([4, 5]), 12) == Pattern(4, 6, 12)
    assert pattern(np.array([2, 3, 8]), 12) is None and pattern(np.array([0, 1, 5, 6]), 12) is None
    assert blocks((4, 2), [Pattern(0, 2, 3), Pattern(2, 3, 3)]) == 2 and blocks((4, 2), []) == 1
