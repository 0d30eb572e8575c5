"""A residual network with batch normalisation, in evaluation, and its port in nnx with its weights converted."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.zoo.port import Port


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return torch.relu(x + shortcut)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.blocks = nn.ModuleList([Block(6, 6, 1), Block(6, 8, 2), Block(8, 8, 1)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.fc(self.pool(x).flatten(1))


# --- the port --------------------------------------------------------------------------------------------------


class PortedBlock(nnx.Module):
    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(inputs, width, (1, 1), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), strides=stride, padding=1, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.downsample = nnx.List([])
        if stride > 1 or inputs != width:
            self.downsample.append(nnx.Conv(inputs, width, (1, 1), strides=stride, use_bias=False, rngs=rngs))
            self.downsample.append(nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return nnx.relu(x + shortcut)


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 6, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(6, momentum=0.9, epsilon=1e-5, rngs=rngs)
        sizes = ((6, 6, 1), (6, 8, 2), (8, 8, 1))
        self.blocks = nnx.List([PortedBlock(*size, rngs=rngs) for size in sizes])
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.fc(jnp.mean(x, (1, 2)))


def converted(state: dict[str, NDArray]) -> Any:
    """PyTorch's state dict as nnx's variables."""
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in state.items():
        *path, kind = name.split(".")
        if kind == "num_batches_tracked":
            continue
        collection = "batch_stats" if kind.startswith("running") else "params"
        named = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
        if array.ndim == 4:
            array, kind = array.transpose(2, 3, 1, 0), "kernel"
        elif array.ndim == 2:
            array, kind = array.T, "kernel"
        else:
            kind = named.get(kind, "scale")
        node = tree[collection]
        for part in path:
            node = node.setdefault(part, {})
        node[kind] = array
    return tree


PORT = Port(
    Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(2, 3, 8, 10)),), converted=converted
)
