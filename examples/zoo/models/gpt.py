"""A causal language model whose output layer is its table of words, and its port in Linen with weights converted."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.zoo.port import Port

WORDS, LENGTH, WIDTH, HEADS = 11, 6, 8, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList([Block(), Block()])
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.wte(words) + self.wpe(torch.arange(words.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


# --- the port --------------------------------------------------------------------------------------------------


class PortedBlock(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(linen.LayerNorm(epsilon=1e-5, name="ln_1")(x))
        hidden = linen.Dense(4 * WIDTH, name="c_fc")(linen.LayerNorm(epsilon=1e-5, name="ln_2")(x))
        return x + linen.Dense(WIDTH, name="c_proj")(jax.nn.gelu(hidden, approximate=True))

    def attention(self, x: jax.Array) -> jax.Array:
        n, t, _ = x.shape
        q, k, v = (
            linen.Dense(WIDTH, name=name)(x).reshape(n, t, HEADS, -1).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(q.shape[-1])
        seen = jnp.tril(jnp.ones((t, t), bool))
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("nhqk,nhkd->nqhd", weights, v)
        return linen.Dense(WIDTH, name="out")(mixed.reshape(n, t, WIDTH))


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        wte = linen.Embed(WORDS, WIDTH, name="wte")
        x = wte(words) + linen.Embed(LENGTH, WIDTH, name="wpe")(jnp.arange(words.shape[1]))
        for i in range(2):
            x = PortedBlock(name=f"h_{i}")(x)
        x = linen.LayerNorm(epsilon=1e-5, name="ln_f")(x)
        return x @ wte.embedding.T


def converted(state: dict[str, NDArray]) -> dict[str, Any]:
    """PyTorch's state dict as Linen's variables."""
    params: dict[str, Any] = {}
    for name, array in state.items():
        *path, kind = name.replace("h.", "h_").split(".")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        if path[-1] in ("wte", "wpe"):
            node["embedding"] = array
        elif kind == "weight":
            node["kernel" if array.ndim == 2 else "scale"] = array.T
        else:
            node["bias"] = array
    return {"params": params}


PORT = Port(Net, PortedNet, lambda rng: (rng.integers(0, WORDS, (2, LENGTH)),), converted=converted)
