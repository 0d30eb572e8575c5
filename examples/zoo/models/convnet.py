"""A plain convolutional net and its port in Linen, with the conversion of its weights written out."""

# pyright: reportArgumentType=false
# Linen declares padding of pools as a name, and takes numbers, too.

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.zoo.port import Port


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 6, 3)
        self.fc1 = nn.Linear(6 * 2 * 3, 12)
        self.fc2 = nn.Linear(12, 12)
        self.fc3 = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(x, 3, 2, padding=1)
        x = F.relu(self.conv2(x))
        x = F.avg_pool2d(x, 3, 1, padding=1)
        x = F.relu(self.conv3(x))
        x = F.max_pool2d(x, 2, ceil_mode=True).flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Conv(8, (5, 5), strides=2, padding=2, name="conv1")(x))
        x = linen.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        x = linen.relu(linen.Conv(8, (3, 3), padding=1, name="conv2")(x))
        x = linen.avg_pool(x, (3, 3), (1, 1), padding=((1, 1), (1, 1)))
        x = linen.relu(linen.Conv(6, (3, 3), padding="VALID", name="conv3")(x))
        # Two windows for three rows, as with ceil_mode; the two columns need no padding.
        x = linen.max_pool(x, (2, 2), (2, 2), padding=((0, 1), (0, 0)))
        x = x.reshape(len(x), -1)
        x = linen.relu(linen.Dense(12, name="fc1")(x))
        x = linen.relu(linen.Dense(12, name="fc2")(x))
        return linen.Dense(4, name="fc3")(x)


def converted(state: dict[str, NDArray]) -> dict[str, Any]:
    """PyTorch's state dict as Linen's variables."""
    params: dict[str, Any] = {}
    for name, array in state.items():
        layer, kind = name.split(".")
        if kind == "weight" and layer.startswith("conv"):
            array = array.transpose(2, 3, 1, 0)  # O I H W to H W I O
        elif layer == "fc1" and kind == "weight":
            array = array.reshape(12, 6, 2, 3).transpose(2, 3, 1, 0).reshape(36, 12)  # C H W to H W C
        elif kind == "weight":
            array = array.T
        params.setdefault(layer, {})["kernel" if kind == "weight" else "bias"] = array
    return {"params": params}


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, 18, 30)),), converted=converted)
