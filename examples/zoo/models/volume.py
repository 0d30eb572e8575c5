"""Three-dimensional convolutions and pools, and their port in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Arrays, Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.conv2, self.norm2 = nn.Conv3d(6, 6, 3, stride=(1, 2, 2), padding=(0, 1, 1)), nn.GroupNorm(2, 6)
        self.up, self.head = nn.ConvTranspose3d(6, 4, 2, stride=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm1(self.conv1(x))), (1, 2, 2))
        x = F.avg_pool3d(F.elu(self.norm2(self.conv2(x))), 2, 1)
        x = F.silu(self.up(x))
        return self.head(x.mean((2, 3, 4)))


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(2, 6, (3, 3, 3), padding=1, rngs=rngs)
        self.norm1 = nnx.BatchNorm(6, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(6, 6, (3, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)), rngs=rngs)
        self.norm2 = nnx.GroupNorm(6, num_groups=2, epsilon=1e-5, rngs=rngs)
        self.up = nnx.ConvTranspose(6, 4, (2, 2, 2), strides=(2, 2, 2), padding="VALID", rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.norm1(self.conv1(x))), (1, 2, 2), (1, 2, 2))
        x = nnx.avg_pool(nnx.elu(self.norm2(self.conv2(x))), (2, 2, 2), (1, 1, 1))
        x = nnx.silu(self.up(x))
        return self.head(jnp.mean(x, (1, 2, 3)))


def channels_last(inputs: Arrays) -> Arrays:
    """N C D H W to N D H W C."""
    return tuple(np.moveaxis(x, 1, -1) for x in inputs)


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 2, 5, 8, 10)),), channels_last)
