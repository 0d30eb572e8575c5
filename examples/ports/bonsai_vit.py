"""bonsai's vision transformer beside transformers'."""

from __future__ import annotations

from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two layers of two heads."""
    transformers = imported("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=7,
    )  # fmt: skip
    reference = randomised(Output(transformers.ViTForImageClassification(config)))
    ours = theirs.ModelConfig((32, 32), (8, 8), 3, 16, 0.0, 0.0, 2, 32, 1e-12, 2, 7)
    port = theirs.ViTClassificationModel(ours, rngs=nnx.Rngs(0))
    return Pair(port, reference, (normal(2, 3, 32, 32),), {"flax_kwargs": {"rngs": None}})


PORT = Port(
    "vit",
    BONSAI,
    "bonsai.models.vit.modeling",
    "transformers, ViTForImageClassification",
    "transformers",
    "atol 5e-2; a layer 1e-2",
    build,
    dtypes=("float32",),  # nnx's attention takes its softmax in float32
)
