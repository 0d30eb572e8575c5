"""Squeeze and excitation, branches as in Inception, and joined layers as in DenseNet; the port is in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.fc2(s))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three_reduce = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)
        self.three, self.pooled = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(F.relu(self.three_reduce(x)))
        pooled = self.pooled(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))
        return F.relu(torch.cat([self.one(x), three, pooled], 1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.se, self.mixed = nn.Conv2d(3, 8, 3, stride=2, bias=False), Squeeze(8), Branches()
        self.grow1, self.grow2 = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed(self.se(self.stem(x)))
        for grow in (self.grow1, self.grow2):
            x = torch.cat([x, F.relu(grow(x))], 1)
        x = F.max_pool2d(x, 3, 2)
        return self.head(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


# --- the port --------------------------------------------------------------------------------------------------


class PortedSqueeze(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        s = jnp.mean(x, (1, 2), keepdims=True)
        s = linen.relu(linen.Conv(4, (1, 1), name="fc1")(s))
        return x * linen.sigmoid(linen.Conv(x.shape[-1], (1, 1), name="fc2")(s))


class PortedBranches(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = linen.Conv(4, (1, 1), name="one")(x)
        three = linen.relu(linen.Conv(3, (1, 1), name="three_reduce")(x))
        three = linen.Conv(4, (3, 3), padding=1, name="three")(three)
        pooled = linen.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        pooled = linen.Conv(4, (1, 1), name="pooled")(pooled)
        return linen.relu(jnp.concatenate([one, three, pooled], -1))


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(8, (3, 3), strides=2, padding="VALID", use_bias=False, name="stem")(x)
        x = PortedBranches(name="mixed")(PortedSqueeze(name="se")(x))
        for name in ("grow1", "grow2"):
            x = jnp.concatenate([x, linen.relu(linen.Conv(4, (3, 3), padding=1, name=name)(x))], -1)
        x = linen.max_pool(x, (3, 3), (2, 2))
        return linen.Dense(5, name="head")(jnp.mean(x, (1, 2)))


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 15, 17)),))
