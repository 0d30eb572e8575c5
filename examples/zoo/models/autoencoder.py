"""A variational autoencoder whose noise is given, with sub-pixel upsampling; the port is in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

LATENT = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.mean, self.log_variance = nn.Linear(4 * 2 * 3, LATENT), nn.Linear(4 * 2 * 3, LATENT)
        self.enter = nn.Linear(LATENT, 4 * 2 * 3)
        self.up1, self.up2 = nn.Conv2d(4, 4 * 6, 3, padding=1), nn.Conv2d(6, 4 * 3, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.conv2(F.relu(self.conv1(x)))).flatten(1)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * noise
        h = F.relu(self.enter(z)).view(-1, 4, 2, 3)
        h = F.relu(F.pixel_shuffle(self.up1(h), 2))
        divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp(), 1)
        return torch.sigmoid(F.pixel_shuffle(self.up2(h), 2)), divergence


# --- the port --------------------------------------------------------------------------------------------------


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """N H W (C f f) to N (H f) (W f) C."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, h * factor, w * factor, c // factor**2)


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 6, (3, 3), strides=2, padding=1, rngs=rngs)
        self.conv2 = nnx.Conv(6, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.mean = nnx.Linear(4 * 2 * 3, LATENT, rngs=rngs)
        self.log_variance = nnx.Linear(4 * 2 * 3, LATENT, rngs=rngs)
        self.enter = nnx.Linear(LATENT, 4 * 2 * 3, rngs=rngs)
        self.up1 = nnx.Conv(4, 4 * 6, (3, 3), padding=1, rngs=rngs)
        self.up2 = nnx.Conv(6, 4 * 3, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        h = h.reshape(len(h), -1)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        h = nnx.relu(self.enter(z)).reshape(-1, 4, 2, 3).transpose(0, 2, 3, 1)
        h = nnx.relu(pixel_shuffle(self.up1(h), 2))
        divergence = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance), 1)
        return nnx.sigmoid(pixel_shuffle(self.up2(h), 2)), divergence


PORT = Port(
    Net,
    lambda: PortedNet(rngs=nnx.Rngs(0)),
    lambda rng: (rng.normal(size=(2, 3, 8, 12)), rng.normal(size=(2, LATENT))),
)
