"""bonsai's V-JEPA 2 beside transformers': encoder, attentive pooler and classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two layers of two heads, on four frames."""
    transformers = imported("transformers")
    sizes = {
        "crop_size": 32, "frames_per_clip": 4, "hidden_size": 36, "num_attention_heads": 2, "num_hidden_layers": 2,
        "mlp_ratio": 2.0, "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1,
        "patch_size": 8, "tubelet_size": 2, "in_chans": 3, "num_pooler_layers": 1, "num_labels": 7,
    }  # fmt: skip
    config = transformers.VJEPA2Config(**sizes)
    reference = randomised(Output(transformers.VJEPA2ForVideoClassification(config)))

    class Logits(nnx.Module):
        """The port without its other result."""

        def __init__(self) -> None:
            self.model = theirs.VJEPA2ForVideoClassification(theirs.ModelConfig(**sizes), rngs=nnx.Rngs(0))

        def __call__(self, video: Any) -> Any:
            return self.model(video)["logits"]

    video = normal(1, 4, 3, 32, 32)
    return Pair(Logits(), reference, (video,), {"flax_inputs": (np.moveaxis(video, 2, -1),)})


PORT = Port(
    "vjepa2",
    BONSAI,
    "bonsai.models.vjepa2.modeling",
    "transformers, VJEPA2ForVideoClassification",
    "transformers",
    "atol 6e-1; small models 2e-3 to 1e-2",
    build,
    dtypes=("float32",),  # the softmax is in float32 on both sides
)
