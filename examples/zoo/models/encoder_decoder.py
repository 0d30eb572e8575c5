"""An encoder and a decoder over padded sequences, norms behind the sums, and the port in Linen."""

from __future__ import annotations

import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Arrays, Port

WORDS, SOURCE, TARGET, WIDTH, HEADS = 12, 5, 4, 8, 2


def sines(length: int) -> Tensor:
    """Positions in sines and cosines, in turn."""
    angles = torch.arange(length, dtype=torch.float64)[:, None]
    angles = angles * torch.exp(torch.arange(0, WIDTH, 2, dtype=torch.float64) * (-math.log(10000.0) / WIDTH))
    table = torch.zeros(length, WIDTH, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            f(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for f, y in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -1e9)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm1 = Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down, self.norm2 = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x, x, mask))
        return self.norm2(x + self.down(F.relu(self.up(x))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm1 = Attention(), nn.LayerNorm(WIDTH)
        self.cross, self.norm2 = Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down, self.norm3 = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, own: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x, x, own))
        x = self.norm2(x + self.cross(x, memory, mask))
        return self.norm3(x + self.down(F.relu(self.up(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.encoder, self.decoder, self.head = Encoder(), Decoder(), nn.Linear(WIDTH, WORDS)

    def words(self, words: Tensor) -> Tensor:
        return self.embed(words) * math.sqrt(WIDTH) + sines(words.shape[1])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = (source != 0)[:, None, None]
        own = (target != 0)[:, None, None] & torch.ones(TARGET, TARGET, dtype=torch.bool).tril()
        memory = self.encoder(self.words(source), padding)
        return self.head(self.decoder(self.words(target), memory, padding, own))


# --- the port --------------------------------------------------------------------------------------------------


def positions(length: int) -> jax.Array:
    """Positions in sines and cosines, in turn."""
    angles = np.arange(length)[:, None] * np.exp(np.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
    return jnp.asarray(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, WIDTH))


class PaddedEmbed(linen.Module):
    """The padding's row gets no gradient, as with PyTorch's `padding_idx`."""

    @linen.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        table = self.param("embedding", linen.initializers.normal(), (WORDS, WIDTH))
        padding = (jnp.arange(WORDS) == 0)[:, None]
        return jnp.where(padding, jax.lax.stop_gradient(table), table)[words]


class PortedAttention(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, memory: jax.Array, mask: jax.Array) -> jax.Array:
        def heads(name: str, y: jax.Array) -> jax.Array:
            return linen.Dense(WIDTH, name=name)(y).reshape(*y.shape[:2], HEADS, -1)

        q, k, v = heads("query", x), heads("key", memory), heads("value", memory)
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9), -1)
        return linen.Dense(WIDTH, name="out")(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(x.shape))


class PortedEncoder(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = linen.LayerNorm(epsilon=1e-5, name="norm1")(x + PortedAttention(name="attn")(x, x, mask))
        hidden = linen.relu(linen.Dense(12, name="up")(x))
        return linen.LayerNorm(epsilon=1e-5, name="norm2")(x + linen.Dense(WIDTH, name="down")(hidden))


class PortedDecoder(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, memory: jax.Array, mask: jax.Array, own: jax.Array) -> jax.Array:
        x = linen.LayerNorm(epsilon=1e-5, name="norm1")(x + PortedAttention(name="attn")(x, x, own))
        x = linen.LayerNorm(epsilon=1e-5, name="norm2")(x + PortedAttention(name="cross")(x, memory, mask))
        hidden = linen.relu(linen.Dense(12, name="up")(x))
        return linen.LayerNorm(epsilon=1e-5, name="norm3")(x + linen.Dense(WIDTH, name="down")(hidden))


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, source: jax.Array, target: jax.Array) -> jax.Array:
        embed = PaddedEmbed(name="embed")

        def embedded(words: jax.Array) -> jax.Array:
            return embed(words) * math.sqrt(WIDTH) + positions(words.shape[1])

        padding = (source != 0)[:, None, None]
        own = (target != 0)[:, None, None] & jnp.tril(jnp.ones((TARGET, TARGET), bool))
        memory = PortedEncoder(name="encoder")(embedded(source), padding)
        x = PortedDecoder(name="decoder")(embedded(target), memory, padding, own)
        return linen.Dense(WORDS, name="head")(x)


def inputs(rng: np.random.Generator) -> Arrays:
    """Two sentences of each, of which the second is shorter: 0 is padding."""
    source, target = rng.integers(1, WORDS, (2, SOURCE)), rng.integers(1, WORDS, (2, TARGET))
    source[1, 3:] = target[1, 2:] = 0
    return source, target


PORT = Port(Net, PortedNet, inputs)
