"""Depthwise, pointwise, dilated and grouped convolutions with channels shuffled between; the port is in nnx."""

from __future__ import annotations

import jax
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=1e-3)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.expand = nn.Conv2d(12, 12, 3, padding="same", dilation=(1, 2))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(3 * self.bn1(self.stem(x)))
        x = F.relu6(self.bn2(self.depthwise(x)))
        x = self.pointwise(x)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = F.hardswish(self.grouped(x))
        x = F.hardswish(self.expand(x))
        return self.head(x.mean((2, 3)))


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(8, epsilon=1e-3, rngs=rngs)
        self.depthwise = nnx.Conv(
            8, 8, (3, 3), padding=2, kernel_dilation=2, feature_group_count=8, use_bias=False, rngs=rngs
        )
        self.bn2 = nnx.BatchNorm(8, epsilon=1e-5, rngs=rngs)
        self.pointwise = nnx.Conv(8, 12, (1, 1), rngs=rngs)
        self.grouped = nnx.Conv(12, 12, (3, 3), padding=1, feature_group_count=3, rngs=rngs)
        self.expand = nnx.Conv(12, 12, (3, 3), padding="SAME", kernel_dilation=(1, 2), rngs=rngs)
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu6(3 * self.bn1(self.stem(x)))
        x = nnx.relu6(self.bn2(self.depthwise(x)))
        x = self.pointwise(x)
        n, h, w, c = x.shape
        x = x.reshape(n, h, w, 3, c // 3).swapaxes(3, 4).reshape(n, h, w, c)
        x = nnx.hard_swish(self.grouped(x))
        x = nnx.hard_swish(self.expand(x))
        return self.head(x.mean((1, 2)))


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 3, 14, 16)),))
