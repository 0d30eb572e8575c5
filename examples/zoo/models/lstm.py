"""A sequence read by an LSTM in both directions, told by another that begins where it ended; the port is in nnx."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

INPUTS, SIZE = 4, 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(INPUTS, SIZE, batch_first=True)
        self.decoder = nn.LSTM(INPUTS, SIZE, batch_first=True)
        self.both = nn.LSTM(SIZE, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(6 + SIZE, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        _, state = self.encoder(x)
        told, (_, memory) = self.decoder(y, state)
        found, _ = self.both(told)
        return self.head(torch.cat([found, memory[-1][:, None].expand(-1, found.shape[1], -1)], -1))


# --- the port --------------------------------------------------------------------------------------------------


def cell(inputs: int, size: int, rngs: nnx.Rngs) -> nnx.OptimizedLSTMCell:
    return nnx.OptimizedLSTMCell(inputs, size, rngs=rngs)


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.encoder = nnx.RNN(cell(INPUTS, SIZE, rngs), return_carry=True)
        self.decoder = nnx.RNN(cell(INPUTS, SIZE, rngs), return_carry=True)
        self.both = nnx.Bidirectional(nnx.RNN(cell(SIZE, 3, rngs)), nnx.RNN(cell(SIZE, 3, rngs)))
        self.head = nnx.Linear(6 + SIZE, 3, rngs=rngs)

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        found: Any  # what a layer gives depends on its settings
        told: Any
        state, _ = self.encoder(x)
        (memory, _), told = self.decoder(y, initial_carry=state)
        found = self.both(told)
        return self.head(jnp.concatenate([found, jnp.repeat(memory[:, None], found.shape[1], 1)], -1))


PORT = Port(
    Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 4)))
)
