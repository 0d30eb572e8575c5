"""A decoder that enlarges maps in four ways, and its port in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.merge = nn.Linear(4 * 3, 6)
        self.conv1, self.conv2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.conv3, self.conv4 = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(n, h // 2, w // 2, 4 * c)
        x = self.merge(x).permute(0, 3, 1, 2)
        x = F.silu(self.conv1(F.interpolate(x, scale_factor=2, mode="nearest")))
        x = F.silu(self.conv2(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)))
        x = F.silu(self.conv3(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return self.conv4(F.pad(x, (1, 1, 1, 1), mode="replicate")).clamp(-0.3, 0.3)


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)
        x = linen.Dense(6, name="merge")(x)
        x = jax.image.resize(x, (n, h, w, 6), "nearest")
        x = linen.silu(linen.Conv(6, (3, 3), padding=1, name="conv1")(x))
        x = jax.image.resize(x, (n, 2 * h, 2 * w, 6), "linear")
        x = linen.silu(linen.Conv(6, (3, 3), padding=1, name="conv2")(x))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        x = linen.silu(linen.Conv(6, (3, 3), padding="VALID", name="conv3")(x))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        return jnp.clip(linen.Conv(3, (3, 3), padding="VALID", name="conv4")(x), -0.3, 0.3)


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 4, 6)),))
