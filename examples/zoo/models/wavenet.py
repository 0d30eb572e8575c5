"""Causal dilated convolutions over time with gates, residuals and skips, and their port in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Arrays, Port


class Block(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(6, 12, 2, dilation=dilation)
        self.residual, self.skip = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        filtered, gate = self.conv(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        y = torch.tanh(filtered) * torch.sigmoid(gate)
        return x + self.residual(y), self.skip(y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(3, 6, 1)
        self.blocks = nn.ModuleList([Block(1), Block(2)])
        self.final, self.logits = nn.Conv1d(5, 5, 3, padding=1), nn.Conv1d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), 0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        x = F.avg_pool1d(F.relu(self.final(F.relu(total))), 2, ceil_mode=True)  # type: ignore[arg-type]
        return self.logits(x)


# --- the port --------------------------------------------------------------------------------------------------


class PortedBlock(nnx.Module):
    def __init__(self, dilation: int, *, rngs: nnx.Rngs) -> None:
        self.dilation = dilation
        self.conv = nnx.Conv(6, 12, (2,), kernel_dilation=dilation, padding="VALID", rngs=rngs)
        self.residual, self.skip = nnx.Conv(6, 6, (1,), rngs=rngs), nnx.Conv(6, 5, (1,), rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        filtered, gate = jnp.split(self.conv(jnp.pad(x, ((0, 0), (self.dilation, 0), (0, 0)))), 2, -1)
        y = jnp.tanh(filtered) * jax.nn.sigmoid(gate)
        return x + self.residual(y), self.skip(y)


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.enter = nnx.Conv(3, 6, (1,), rngs=rngs)
        self.blocks = nnx.List([PortedBlock(1, rngs=rngs), PortedBlock(2, rngs=rngs)])
        self.final, self.logits = nnx.Conv(5, 5, (3,), padding=1, rngs=rngs), nnx.Conv(5, 4, (1,), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, total = self.enter(x), 0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        x = nnx.relu(self.final(nnx.relu(total)))
        x = nnx.avg_pool(x, (2,), (2,), padding="SAME", count_include_pad=False)
        return self.logits(x)


def times_last(inputs: Arrays) -> Arrays:
    """N C T to N T C."""
    return tuple(np.moveaxis(x, 1, -1) for x in inputs)


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 3, 9)),), times_last)
