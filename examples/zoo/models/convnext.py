"""ConvNeXt's blocks: wide depthwise windows, norms over channels, scaled branches; the port is in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class ChannelNorm(nn.LayerNorm):
    """Over the channels of a map N C H W."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        shortcut, x = x, self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(F.gelu(self.pwconv1(self.norm(x))))
        return shortcut + (self.gamma * x).permute(0, 3, 1, 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 2, stride=2), ChannelNorm(6, eps=1e-6)
        self.block1 = Block(6)
        self.down_norm, self.down = ChannelNorm(6, eps=1e-6), nn.Conv2d(6, 8, 2, stride=2)
        self.block2 = Block(8)
        self.norm, self.head = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(self.stem_norm(self.stem(x)))
        x = self.block2(self.down(self.down_norm(x)))
        return self.head(self.norm(x.mean((-2, -1))))


# --- the port --------------------------------------------------------------------------------------------------


class PortedBlock(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        gamma = self.param("gamma", linen.initializers.constant(0.5), (width,))
        y = linen.Conv(width, (7, 7), padding=3, feature_group_count=width, name="dwconv")(x)
        y = linen.LayerNorm(epsilon=1e-6, name="norm")(y)
        y = jax.nn.gelu(linen.Dense(4 * width, name="pwconv1")(y), approximate=False)
        return x + gamma * linen.Dense(width, name="pwconv2")(y)


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(6, (2, 2), strides=2, padding="VALID", name="stem")(x)
        x = linen.LayerNorm(epsilon=1e-6, name="stem_norm")(x)
        x = PortedBlock(name="block1")(x)
        x = linen.LayerNorm(epsilon=1e-6, name="down_norm")(x)
        x = linen.Conv(8, (2, 2), strides=2, padding="VALID", name="down")(x)
        x = PortedBlock(name="block2")(x)
        x = linen.LayerNorm(epsilon=1e-6, name="norm")(jnp.mean(x, (1, 2)))
        return linen.Dense(4, name="head")(x)


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 12, 16)),))
