"""A step of training: batch normalisation with the batch's own statistics, and what running ones become; in Linen."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.zoo.port import Arrays, Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6, track_running_stats=False)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5, track_running_stats=False)
        self.fc, self.bn3 = nn.Linear(5, 4), nn.BatchNorm1d(4, eps=1e-3, track_running_stats=False)

    def forward(self, x: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.conv2(F.relu(self.bn1(self.conv1(x))))
        # The running statistics, as PyTorch's norm keeps them: of the sample, with a momentum of 0.1.
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3), unbiased=True)
        x = self.bn3(self.fc(F.relu(self.bn2(x)).mean((2, 3))))
        loss = F.cross_entropy(x, torch.arange(len(x)) % 4, label_smoothing=0.1)
        return x, mean, variance, loss


# --- the port --------------------------------------------------------------------------------------------------


class PortedBatchNorm(linen.Module):
    """Of the batch alone, written out."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", linen.initializers.ones, x.shape[-1:])
        bias = self.param("bias", linen.initializers.zeros, x.shape[-1:])
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, mean: jax.Array, variance: jax.Array) -> tuple[jax.Array, ...]:
        x = linen.Conv(6, (3, 3), padding=1, use_bias=False, name="conv1")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=False, epsilon=1e-5, name="bn1")(x))
        x = linen.Conv(5, (3, 3), strides=2, padding=1, name="conv2")(x)
        mean = 0.9 * mean + 0.1 * x.mean((0, 1, 2))
        variance = 0.9 * variance + 0.1 * x.var((0, 1, 2), ddof=1)
        x = linen.relu(PortedBatchNorm(name="bn2")(x))
        x = linen.Dense(4, name="fc")(x.mean((1, 2)))
        x = linen.BatchNorm(use_running_average=False, epsilon=1e-3, name="bn3")(x)
        targets = 0.9 * jax.nn.one_hot(jnp.arange(len(x)) % 4, 4, dtype=x.dtype) + 0.1 / 4
        loss = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(x), -1))
        return x, mean, variance, loss


def inputs(rng: np.random.Generator) -> Arrays:
    """Pictures, and running statistics so far."""
    return rng.normal(size=(6, 3, 8, 6)), rng.normal(size=5), rng.uniform(0.5, 2, size=5)


PORT = Port(Net, PortedNet, inputs)
