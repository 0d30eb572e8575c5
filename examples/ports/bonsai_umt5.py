"""The encoder of bonsai's UMT5 beside transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, randomised


def build(theirs: Any) -> Pair:
    """Two layers of two heads."""
    transformers = imported("transformers")
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    config = transformers.UMT5Config(**sizes, feed_forward_proj="gated-gelu")
    reference = randomised(Output(transformers.UMT5EncoderModel(config), "last_hidden_state"))
    port = theirs.UMT5EncoderModel(theirs.ModelConfig(**sizes), rngs=nnx.Rngs(0))
    return Pair(port, reference, (np.random.default_rng(0).integers(2, 40, (2, 20)),))


PORT = Port(
    "umt5",
    BONSAI,
    "bonsai.models.umt5.modeling",
    "transformers, UMT5EncoderModel",
    "transformers",
    "rtol 1e-3, atol 1e-5",
    build,
    dtypes=("float32",),  # norms and softmax are in float32 on both sides
)
