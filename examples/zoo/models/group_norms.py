"""Group, instance and layer normalisation of maps, and one written out as in old code; the port is in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class OldLayerNorm(nn.Module):
    """With the sample's deviation, and epsilon added to that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.bias


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8, eps=1e-6)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True)
        self.conv3, self.norm3 = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(1, 8)
        self.norm4, self.fc1 = nn.LayerNorm(8), nn.Linear(8, 6)
        self.norm5, self.fc2 = OldLayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.conv1(x)))
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)
        x = F.elu(self.norm3(self.conv3(x)))
        x = self.norm4(x.mean((2, 3)))
        x = self.norm5(self.fc1(x))
        return self.fc2((x - x.mean(0)) / torch.sqrt(x.var(0) + 1e-5))


# --- the port --------------------------------------------------------------------------------------------------


class PortedOldLayerNorm(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("weight", linen.initializers.ones, x.shape[-1:])
        bias = self.param("bias", linen.initializers.zeros, x.shape[-1:])
        deviation = jnp.std(x, -1, keepdims=True, ddof=1)
        return scale * (x - x.mean(-1, keepdims=True)) / (deviation + 1e-6) + bias


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(8, (3, 3), padding=1, name="conv1")(x)
        x = linen.silu(linen.GroupNorm(num_groups=4, epsilon=1e-6, name="norm1")(x))
        x = linen.Conv(8, (3, 3), padding=1, name="conv2")(x)
        x = linen.InstanceNorm(epsilon=1e-5, name="norm2")(x)
        x = jnp.where(x > 0, x, 0.2 * x)  # linen.leaky_relu has another gradient at exactly 0
        x = linen.Conv(8, (3, 3), padding=1, name="conv3")(x)
        x = linen.elu(linen.GroupNorm(num_groups=1, epsilon=1e-5, name="norm3")(x))
        x = linen.LayerNorm(epsilon=1e-5, name="norm4")(x.mean((1, 2)))
        x = PortedOldLayerNorm(name="norm5")(linen.Dense(6, name="fc1")(x))
        x = (x - x.mean(0)) / jnp.sqrt(jnp.var(x, 0, ddof=1) + 1e-5)
        return linen.Dense(4, name="fc2")(x)


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(5, 3, 6, 7)),))
