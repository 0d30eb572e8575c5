"""bonsai's U-Net, which was ported from no PyTorch model, beside the same network written out in PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.ports.port import BONSAI, Pair, Port, normal, randomised


class Twice(nn.Module):
    """Two convolutions, each with a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W)."""
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Reference(nn.Module):
    """As in https://arxiv.org/abs/1505.04597, with padded convolutions."""

    def __init__(self, features: tuple[int, ...], classes: int) -> None:
        super().__init__()
        sizes = (1, *features)
        self.down = nn.ModuleList([Twice(a, b) for a, b in itertools.pairwise(sizes)])
        pairs = list(itertools.pairwise(features[::-1]))
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs])
        self.joined = nn.ModuleList([Twice(a, b) for a, b in pairs])
        self.last = nn.Conv2d(features[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, classes, H, W)."""
        kept: list[Tensor] = []
        for level, twice in enumerate(self.down):
            x = twice(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for up, twice, skipped in zip(self.up, self.joined, kept[-2::-1], strict=True):
            x = twice(torch.cat([skipped, up(x)], 1))
        return self.last(x)


def build(theirs: Any) -> Pair:
    """A sixteenth of the width."""
    features = (4, 8, 16, 32, 64)
    port = theirs.UNet(theirs.ModelConfig(features=features), rngs=nnx.Rngs(0))
    return Pair(port, randomised(Reference(features, 2)), (normal(1, 1, 32, 32),))


PORT = Port(
    "unet", BONSAI, "bonsai.models.unet.modeling", "the paper's network, written out", "torch", "no such test", build
)
