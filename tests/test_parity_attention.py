"""Stock attention of Flax, whose projections keep heads apart, against PyTorch's Linear layers and its attention."""

from __future__ import annotations

from typing import Any

import flax.linen as flax_nn
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

import parity
from parity.kinds import layouts, weights

HEADS, DIM, LENGTH = 2, 4, 5
WIDTH = HEADS * DIM
CAUSAL = np.tril(np.ones((LENGTH, LENGTH), bool))
PADDING = (np.arange(LENGTH) < np.array([[5], [3]]))[:, None, None]  # (N, 1, 1, T), True where there is something
MASKS = {"none": None, "causal": CAUSAL[None, None], "padding": PADDING, "both": PADDING & CAUSAL}


class TorchAttention(nn.Module):
    """Four Linear layers, and heads that are split from the last axis."""

    def __init__(self, mask: Any = None, width: int = WIDTH, names: str = "qkvo") -> None:
        super().__init__()
        for name in names:
            self.add_module({"o": "out_proj"}.get(name, f"{name}_proj"), nn.Linear(width, width))
        self.mask = None if mask is None else torch.tensor(mask)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        mixed = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v), attn_mask=self.mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class CausalTorchAttention(TorchAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.q_proj(x)), self.heads(self.k_proj(x)), self.heads(self.v_proj(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class NnxAttention(nnx.Module):
    def __init__(self, mask: Any = None) -> None:
        rngs = nnx.Rngs(0)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs, param_dtype=jnp.float64)
        self.mask = nnx.data(None) if mask is None else nnx.Variable(jnp.asarray(mask))

    def __call__(self, x: Any) -> Any:
        return self.attention(x, mask=None if self.mask is None else self.mask[...])


@pytest.fixture
def x() -> np.ndarray:
    torch.manual_seed(0)
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_linen(mask: str, dtype: str, x: np.ndarray) -> None:
    module = flax_nn.MultiHeadDotProductAttention(HEADS)
    report = parity.compare(
        module, TorchAttention(MASKS[mask]), x, dtype=dtype, flax_kwargs={"mask": MASKS[mask]}
    )
    assert report.exit_code == 0, str(report)
    gradients = {row.name for row in report.rows if row.stage == "backward:kernel"}
    assert gradients == {"query", "key", "value", "out"}
    assert {row.name for row in report.rows if row.stage == "cotangent"} >= {"query", "key", "value", "input"}


@pytest.mark.parametrize("mask", MASKS)
def test_nnx(mask: str, x: np.ndarray) -> None:
    report = parity.compare(NnxAttention(MASKS[mask]), TorchAttention(MASKS[mask]), x)
    assert report.exit_code == 0, str(report)
    assert {row.name for row in report.rows if row.stage == "backward:bias"} == {
        f"attention/{name}" for name in ("query", "key", "value", "out")
    }
