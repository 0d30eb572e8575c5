"""A decoder with rotary positions, grouped queries, RMSNorm and SwiGLU, and its port in nnx."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

WORDS, LENGTH, WIDTH, HEADS, GROUPS, DIM, HIDDEN, BASE = 13, 6, 12, 4, 2, 4, 16, 10000.0


def turned(x: Tensor) -> Tensor:
    """Rotary positions of (N, heads, T, DIM), halves paired."""
    angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] / BASE ** (torch.arange(0, DIM, 2, dtype=x.dtype) / DIM)
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat([-other, one], -1) * sin


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * DIM, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, GROUPS * DIM, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, DIM)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turned(q), turned(k)
        k, v = (y.repeat_interleave(HEADS // GROUPS, 1) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_norm, self.attn = nn.RMSNorm(WIDTH, eps=1e-5), Attention()
        self.post_norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.input_norm(x))
        y = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList([Block(), Block()])
        self.norm, self.lm_head = nn.RMSNorm(WIDTH, eps=1e-5), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


# --- the port --------------------------------------------------------------------------------------------------


def turn(x: jax.Array) -> jax.Array:
    """Rotary positions of (N, T, heads, DIM), halves paired."""
    frequencies = 1.0 / BASE ** (jnp.arange(0, DIM, 2, dtype=x.dtype) / DIM)
    angles = jnp.arange(x.shape[1], dtype=x.dtype)[:, None, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    one, other = x[..., : DIM // 2], x[..., DIM // 2 :]
    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], -1)


class PortedAttention(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.q_proj = nnx.Linear(WIDTH, HEADS * DIM, use_bias=False, rngs=rngs)
        self.k_proj = nnx.Linear(WIDTH, GROUPS * DIM, use_bias=False, rngs=rngs)
        self.v_proj = nnx.Linear(WIDTH, GROUPS * DIM, use_bias=False, rngs=rngs)
        self.o_proj = nnx.Linear(HEADS * DIM, WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, t, _ = x.shape
        q, k, v = (f(x).reshape(n, t, -1, DIM) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turn(q), turn(k)
        k, v = (jnp.repeat(y, HEADS // GROUPS, axis=2) for y in (k, v))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(DIM)
        seen = jnp.arange(t)[:, None] >= jnp.arange(t)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
        return self.o_proj(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, -1))


class PortedBlock(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.input_norm, self.attn = nnx.RMSNorm(WIDTH, epsilon=1e-5, rngs=rngs), PortedAttention(rngs=rngs)
        self.post_norm = nnx.RMSNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.gate_proj = nnx.Linear(WIDTH, HIDDEN, use_bias=False, rngs=rngs)
        self.up_proj = nnx.Linear(WIDTH, HIDDEN, use_bias=False, rngs=rngs)
        self.down_proj = nnx.Linear(HIDDEN, WIDTH, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.input_norm(x))
        y = self.post_norm(x)
        return x + self.down_proj(jax.nn.silu(self.gate_proj(y)) * self.up_proj(y))


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.layers = nnx.List([PortedBlock(rngs=rngs) for _ in range(2)])
        self.norm = nnx.RMSNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.lm_head = nnx.Linear(WIDTH, WORDS, use_bias=False, rngs=rngs)

    def __call__(self, words: jax.Array) -> jax.Array:
        x = self.embed(words)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.integers(0, WORDS, (2, LENGTH)),))
