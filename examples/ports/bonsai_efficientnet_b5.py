"""bonsai's EfficientNet B5 to B7, whose padding and epsilon are TensorFlow's, beside timm's."""

from __future__ import annotations

from typing import Any

from examples.ports import bonsai_efficientnet
from examples.ports.port import BONSAI, Pair, Port


def build(theirs: Any) -> Pair:
    """One block a stage, of the width of B0."""
    return bonsai_efficientnet.build(theirs, "b5", bn_eps=1e-3, pad_type="same")


PORT = Port(
    "efficientnet_b5",
    BONSAI,
    "bonsai.models.efficientnet.modeling",
    "timm, tf_efficientnet_b5",
    "timm",
    "atol 1e-3",
    build,
)
