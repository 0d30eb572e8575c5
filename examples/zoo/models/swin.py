"""Attention in shifted windows with a table of relative biases, and its port in Linen."""

from __future__ import annotations

import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port

WIDTH, HEADS, WINDOW = 8, 2, 2


def differences() -> np.ndarray:
    """Place in the table of each pair of positions in a window."""
    places = np.stack(np.meshgrid(np.arange(WINDOW), np.arange(WINDOW), indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None, :] + WINDOW - 1
    return apart[0] * (2 * WINDOW - 1) + apart[1]


def regions(height: int, width: int, shift: int) -> np.ndarray:
    """(windows, positions, positions): whether two positions of a window lay side by side before the map was rolled."""
    region = np.zeros((height, width))
    cuts = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            region[rows, columns] = 3 * i + j
    parts = region.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW).swapaxes(1, 2).reshape(-1, WINDOW**2)
    return parts[:, :, None] == parts[:, None, :]


class WindowAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Parameter(torch.randn((2 * WINDOW - 1) ** 2, HEADS))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / math.sqrt(WIDTH // HEADS)
        scores = scores + self.table[torch.from_numpy(differences()).flatten()].view(t, t, HEADS).permute(2, 0, 1)
        if mask is not None:
            scores = scores.view(-1, len(mask), HEADS, t, t) + mask[:, None]
            scores = scores.view(n, HEADS, t, t)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, WIDTH))


class Block(nn.Module):
    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.attn = nn.LayerNorm(WIDTH), WindowAttention()
        self.norm2, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, _ = x.shape
        y, mask = self.norm1(x), None
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
            mask = torch.zeros(h * w // WINDOW**2, WINDOW**2, WINDOW**2, dtype=x.dtype)
            mask = mask.masked_fill(~torch.from_numpy(regions(h, w, self.shift)), -100.0)
        y = y.view(n, h // WINDOW, WINDOW, w // WINDOW, WINDOW, WIDTH).transpose(2, 3).reshape(-1, WINDOW**2, WIDTH)
        y = self.attn(y, mask)
        y = y.view(n, h // WINDOW, w // WINDOW, WINDOW, WINDOW, WIDTH).transpose(2, 3).reshape(n, h, w, WIDTH)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Merging(nn.Module):
    """Four neighbours become one position."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.blocks = nn.ModuleList([Block(0), Block(1)])
        self.merging, self.head = Merging(), nn.Linear(2 * WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.merging(x).mean((1, 2)))


# --- the port --------------------------------------------------------------------------------------------------


class PortedWindowAttention(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        n, t, _ = x.shape
        table = self.param("table", linen.initializers.normal(), ((2 * WINDOW - 1) ** 2, HEADS))
        q, k, v = jnp.moveaxis(linen.Dense(3 * WIDTH, name="qkv")(x).reshape(n, t, 3, HEADS, -1), 2, 0)
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(WIDTH // HEADS)
        scores = scores + table[differences()].transpose(2, 0, 1)
        if mask is not None:
            scores = scores.reshape(-1, len(mask), HEADS, t, t) + jnp.where(mask, 0.0, -100.0)[:, None]
            scores = scores.reshape(n, HEADS, t, t)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, -1), v)
        return linen.Dense(WIDTH, name="proj")(mixed.reshape(n, t, WIDTH))


class PortedBlock(linen.Module):
    shift: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, h, w, _ = x.shape
        y, mask = linen.LayerNorm(epsilon=1e-5, name="norm1")(x), None
        if self.shift:
            y = jnp.roll(y, (-self.shift, -self.shift), (1, 2))
            mask = jnp.asarray(regions(h, w, self.shift))
        y = y.reshape(n, h // WINDOW, WINDOW, w // WINDOW, WINDOW, WIDTH).swapaxes(2, 3)
        y = PortedWindowAttention(name="attn")(y.reshape(-1, WINDOW**2, WIDTH), mask)
        y = y.reshape(n, h // WINDOW, w // WINDOW, WINDOW, WINDOW, WIDTH).swapaxes(2, 3).reshape(n, h, w, WIDTH)
        if self.shift:
            y = jnp.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        hidden = linen.Dense(12, name="up")(linen.LayerNorm(epsilon=1e-5, name="norm2")(x))
        return x + linen.Dense(WIDTH, name="down")(jax.nn.gelu(hidden, approximate=False))


class PortedMerging(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        x = linen.LayerNorm(epsilon=1e-5, name="norm")(jnp.concatenate(corners, -1))
        return linen.Dense(2 * WIDTH, use_bias=False, name="reduction")(x)


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(WIDTH, (2, 2), strides=2, padding="VALID", name="embed")(x)
        for i, shift in enumerate((0, 1)):
            x = PortedBlock(shift, name=f"blocks_{i}")(x)
        return linen.Dense(4, name="head")(PortedMerging(name="merging")(x).mean((1, 2)))


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 8, 12)),))
