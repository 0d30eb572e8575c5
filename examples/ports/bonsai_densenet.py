"""bonsai's DenseNet beside torchvision's, with the padding of Keras's, from which it was ported."""

from __future__ import annotations

from typing import Any

from flax import nnx
from torch import nn

from examples.ports.port import BONSAI, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two layers a block, a growth of 8."""
    torchvision = imported("torchvision")
    reference = torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=7)
    reference.features.conv0.padding = (0, 0)
    reference.features.conv0 = nn.Sequential(nn.ZeroPad2d((2, 3, 2, 3)), reference.features.conv0)
    reference.features.pool0 = nn.MaxPool2d(3, 2, ceil_mode=True)
    port = theirs.DenseNet(theirs.ModelConfig(7, [2, 2, 2], 8), rngs=nnx.Rngs(0))
    return Pair(port, randomised(reference), (normal(2, 3, 64, 64),))


PORT = Port(
    "densenet121",
    BONSAI,
    "bonsai.models.densenet121.modeling",
    "torchvision, DenseNet with Keras's padding",
    "torchvision",
    "atol 1e-3",
    build,
)
