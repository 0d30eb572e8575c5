"""One network on two pictures, several outputs, and its port in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 6, 3, padding=1, padding_mode="zeros"), nn.Linear(6 * 3 * 4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return torch.tanh(self.fc(x.flatten(1)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower, self.head, self.bilinear = Tower(), nn.Linear(8, 3), nn.Linear(8, 8, bias=False)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        a, b = self.tower(left), self.tower(right)
        return {
            "classes": self.head(torch.abs(a - b)),
            "distance": F.pairwise_distance(a, b),
            "similarity": F.cosine_similarity(a, b),
            "score": (a * self.bilinear(b)).sum(-1),
        }


# --- the port --------------------------------------------------------------------------------------------------


class PortedTower(linen.Module):
    def setup(self) -> None:
        self.conv, self.fc = linen.Conv(6, (3, 3), padding=1), linen.Dense(8)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.max_pool(linen.relu(self.conv(x)), (2, 2), (2, 2))
        return jnp.tanh(self.fc(x.reshape(len(x), -1)))


class PortedNet(linen.Module):
    def setup(self) -> None:
        self.tower, self.head, self.bilinear = PortedTower(), linen.Dense(3), linen.Dense(8, use_bias=False)

    def __call__(self, left: jax.Array, right: jax.Array) -> tuple[jax.Array, ...]:
        a, b = self.tower(left), self.tower(right)
        classes = self.head((a - b) * jnp.sign(a - b))  # jnp.abs has the gradient 1 at exactly 0, PyTorch's 0
        distance = jnp.linalg.norm(a - b + 1e-6, axis=-1)
        lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
        similarity = jnp.sum(a * b, -1) / jnp.maximum(lengths, 1e-8)
        # A tuple in the order of PyTorch's dictionary: JAX would sort its keys.
        return classes, distance, similarity, jnp.sum(a * self.bilinear(b), -1)


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(3, 2, 6, 8)), rng.normal(size=(3, 2, 6, 8))))
