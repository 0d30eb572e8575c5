"""An MLP-Mixer, and its port in nnx."""

from __future__ import annotations

import jax
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

TOKENS, WIDTH = 6, 6  # as many: an exchange of the two doesn't show in shapes


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.tokens = nn.LayerNorm(WIDTH), Mlp(TOKENS, 9)
        self.norm2, self.channels = nn.LayerNorm(WIDTH), Mlp(WIDTH, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 3, stride=3)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


# --- the port --------------------------------------------------------------------------------------------------


class PortedMlp(nnx.Module):
    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.fc1, self.fc2 = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class PortedBlock(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.norm1, self.tokens = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs), PortedMlp(TOKENS, 9, rngs=rngs)
        self.norm2, self.channels = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs), PortedMlp(WIDTH, 9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)
        return x + self.channels(self.norm2(x))


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, WIDTH, (3, 3), strides=3, padding="VALID", rngs=rngs)
        self.blocks = nnx.List([PortedBlock(rngs=rngs) for _ in range(2)])
        self.norm, self.head = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs), nnx.Linear(WIDTH, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x)
        x = x.reshape(len(x), TOKENS, WIDTH)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 3, 6, 9)),))
