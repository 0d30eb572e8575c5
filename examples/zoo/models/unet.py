"""A small U-Net with transposed convolutions and joined maps, and its port in Linen."""

# pyright: reportArgumentType=false
# Linen declares padding of pools as a name, and takes numbers, too.

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 6, 4, stride=2, padding=1)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1)
        self.join = nn.Conv2d(12, 6, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.leave = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.enter(x), 0.2)
        y = F.leaky_relu(self.middle(F.max_pool2d(self.down(x), 3, 1, 1)), 0.2)
        y = torch.cat([self.up1(y), x], 1)
        y = F.relu(self.join(y))
        return torch.tanh(self.leave(F.relu(self.up2(y))))


# --- the port --------------------------------------------------------------------------------------------------


def leaky(x: jax.Array) -> jax.Array:
    """ReLU with PyTorch's gradient at exactly 0, where linen.leaky_relu has 1."""
    return jnp.where(x > 0, x, 0.2 * x)


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = leaky(linen.Conv(6, (3, 3), padding=1, name="enter")(x))
        y = linen.Conv(6, (4, 4), strides=2, padding=1, name="down")(x)
        y = linen.max_pool(y, (3, 3), (1, 1), padding=((1, 1), (1, 1)))
        y = leaky(linen.Conv(6, (3, 3), padding=1, name="middle")(y))
        # PyTorch's padding p of a window k is k - 1 - p here, and its output_padding is added behind.
        y = linen.ConvTranspose(6, (4, 4), strides=(2, 2), padding=((2, 2), (2, 2)), name="up1")(y)
        y = jnp.concatenate([y, x], -1)
        y = linen.relu(linen.Conv(6, (3, 3), padding=1, name="join")(y))
        y = linen.ConvTranspose(4, (3, 3), strides=(2, 2), padding=((1, 2), (1, 2)), name="up2")(y)
        return jnp.tanh(linen.Conv(2, (1, 1), name="leave")(linen.relu(y)))


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 8, 10)),))
