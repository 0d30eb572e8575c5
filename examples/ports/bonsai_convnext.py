"""bonsai's ConvNeXt beside transformers'."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two stages of two and one blocks."""
    transformers = imported("transformers")
    settings = {"depths": [2, 1], "hidden_sizes": [16, 24], "num_stages": 2, "num_labels": 7}
    config = transformers.ConvNextConfig(**settings, layer_scale_init_value=0.5)
    reference = randomised(Output(transformers.ConvNextForImageClassification(config)))
    ours = theirs.ModelConfig((2, 1), (16, 24), 0.0, 7, layer_scale_init_value=0.5)
    port = theirs.ConvNeXt(ours, rngs=nnx.Rngs(0))
    return Pair(port, reference, (normal(2, 3, 32, 32),), {"flax_kwargs": {"rngs": jax.random.key(0)}})


PORT = Port(
    "convnext",
    BONSAI,
    "bonsai.models.convnext.modeling",
    "transformers, ConvNextForImageClassification",
    "transformers",
    "rtol = atol = 2e-5; blocks 5e-4",
    build,
)
