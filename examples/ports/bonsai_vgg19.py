"""bonsai's VGG-19 beside timm's, whose head is of convolutions, too."""

from __future__ import annotations

from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two convolutions a stage or one, an eighth of the width; 224 pixels, so that the head sees maps of seven."""
    reference_module = imported("timm.models.vgg")
    reference = reference_module.VGG([8, "M", 16, 16, "M", 32, "M", 64, "M", 64, 64, "M"], num_classes=7)
    reference.pre_logits = reference_module.ConvMlp(64, 48, 7)
    reference.head.fc = type(reference.head.fc)(48, 7)
    config = theirs.ModelConfig(num_classes=7, block_layers=[1, 2, 1, 1, 2], channels=[8, 16, 32, 64, 64, 48])
    port = theirs.VGG(config, rngs=nnx.Rngs(0))
    return Pair(port, randomised(reference), (normal(1, 3, 224, 224),))


PORT = Port("vgg19", BONSAI, "bonsai.models.vgg19.modeling", "timm, VGG", "timm", "atol 1e-3", build)
