"""bonsai's ResNet beside transformers'."""

from __future__ import annotations

from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """One bottleneck block a stage; widths are fixed in the port."""
    transformers = imported("transformers")
    config = transformers.ResNetConfig(depths=[1, 1, 1, 1], num_labels=7)
    reference = randomised(Output(transformers.ResNetForImageClassification(config)))
    port = theirs.ResNet(theirs.ModelConfig([1, 1, 1, 1], num_classes=7), rngs=nnx.Rngs(0))
    return Pair(port, reference, (normal(2, 3, 64, 64),))


PORT = Port(
    "resnet",
    BONSAI,
    "bonsai.models.resnet.modeling",
    "transformers, ResNetForImageClassification",
    "transformers",
    "rtol 1e-5",
    build,
)
