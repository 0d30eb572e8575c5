"""flaxmodels' ResNet beside torchvision's."""

from __future__ import annotations

from typing import Any

from examples.ports.port import FLAXMODELS, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """ResNet-18: its widths and depths are fixed."""
    torchvision = imported("torchvision")
    reference = randomised(torchvision.models.resnet18(num_classes=7))
    port = theirs.ResNet18(output="logits", pretrained=None, normalize=False, num_classes=7, dtype=None)
    return Pair(port, reference, (normal(1, 3, 32, 32),), {"flax_kwargs": {"train": False}})


PORT = Port(
    "flaxmodels_resnet18",
    FLAXMODELS,
    "flaxmodels.resnet.resnet",
    "torchvision, resnet18",
    "torchvision",
    "mean difference < 1e-5",
    build,
)
