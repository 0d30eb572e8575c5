"""bonsai's EfficientNet B0 beside timm's."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Pair, Port, imported, normal, randomised


def build(theirs: Any, size: str = "b0", **settings: Any) -> Pair:
    """One block a stage, of the width of B0."""
    reference_module = imported("timm.models.efficientnet")
    reference = reference_module._gen_efficientnet(
        "efficientnet_b0", channel_multiplier=1.0, depth_multiplier=0.1, num_classes=7, **settings
    )
    config = getattr(theirs.ModelConfig, size)(7)
    config = dataclasses.replace(config, width_coefficient=1.0, depth_coefficient=0.1)
    return Pair(theirs.EfficientNet(config, rngs=nnx.Rngs(0)), randomised(reference), (normal(1, 3, 64, 64),))


PORT = Port(
    "efficientnet_b0",
    BONSAI,
    "bonsai.models.efficientnet.modeling",
    "timm, efficientnet_b0",
    "timm",
    "atol 1e-3",
    build,
)
