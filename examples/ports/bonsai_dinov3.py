"""bonsai's DINOv3 beside transformers'."""

from __future__ import annotations

from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two layers of two heads; the port takes images as PyTorch does."""
    transformers = imported("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.DINOv3ViTConfig(**sizes, image_size=32, patch_size=8, num_register_tokens=4)
    reference = randomised(Output(transformers.DINOv3ViTModel(config), "last_hidden_state", "pooler_output"))
    ours = theirs.ModelConfig(patch_size=(8, 8), image_size=32, **sizes)
    images = normal(2, 3, 32, 32)
    return Pair(theirs.Dinov3ViTModel(ours, nnx.Rngs(0)), reference, (images,), {"flax_inputs": (images,)})


PORT = Port(
    "dinov3",
    BONSAI,
    "bonsai.models.dinov3.modeling",
    "transformers, DINOv3ViTModel",
    "transformers",
    "atol 3e-2; a layer 3e-3",
    build,
    dtypes=("float32",),  # rotations are made in float32 on both sides
)
