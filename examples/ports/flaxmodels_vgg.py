"""flaxmodels' VGG-16 beside torchvision's."""

from __future__ import annotations

from typing import Any

from torch import nn

from examples.ports.port import FLAXMODELS, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Without the fully connected layers, whose widths are fixed."""
    torchvision = imported("torchvision")
    reference = nn.Sequential(randomised(torchvision.models.vgg16(num_classes=7)).get_submodule("features"))
    port = theirs.VGG(
        output="logits", pretrained=None, normalize=False, architecture="vgg16", include_head=False, dtype=None
    )
    return Pair(port, reference, (normal(1, 3, 32, 32),), {"flax_kwargs": {"train": False}})


PORT = Port(
    "flaxmodels_vgg16",
    FLAXMODELS,
    "flaxmodels.vgg.vgg",
    "torchvision, vgg16",
    "torchvision",
    "mean difference < 1e-6",
    build,
)
