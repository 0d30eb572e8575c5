"""The language model of bonsai's Gemma 3 beside transformers', from embedded tokens on."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from torch import nn

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two layers, the first of which sees a window of four; four heads that share two keys."""
    transformers = imported("transformers")
    modes = theirs.AttentionMode
    sizes = {
        "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6, "sliding_window": 4,
    }  # fmt: skip
    config = transformers.Gemma3TextConfig(
        **sizes, query_pre_attn_scalar=8, layer_types=[modes.SLIDE.value, modes.FULL.value], rope_theta=1e6,
        rope_local_base_freq=1e4, rope_scaling={"rope_type": "linear", "factor": 8.0},
    )  # fmt: skip
    model = transformers.Gemma3TextModel(config)
    model.embed_tokens = nn.Identity()  # it isn't asked
    reference = randomised(Output(model, "last_hidden_state", names=("inputs_embeds",), use_cache=False))
    ours = theirs.TextConfig(
        **sizes, attention_bias=False, attention_dropout=0.0, layer_types=[modes.SLIDE, modes.FULL],
        max_position_embeddings=64, rope_full_factor=8.0, rope_full_theta=1e6, rope_slide_factor=1.0,
        rope_slide_theta=1e4, norm_dtype=jnp.float32,
    )  # fmt: skip

    class Fresh(nnx.Module):
        """The port with an empty cache and its own masks."""

        def __init__(self) -> None:
            self.model = theirs.Gemma3TextModel(ours, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            batch, length, _ = x.shape
            cache = [theirs.LayerCache(ours, i, batch, 8, jnp.float32) for i in range(2)]
            text = jnp.zeros((batch, length), jnp.int32)
            causal = theirs.make_causal_mask(cache[0], text, out_sharding=None)
            window = theirs.make_window_mask(cache[0], text, slide_size=4, out_sharding=None)
            return self.model(x, cache, text + 1, window, causal)

    return Pair(Fresh(), reference, (normal(2, 8, 32),))


PORT = Port(
    "gemma3",
    BONSAI,
    "bonsai.models.gemma3.modeling",
    "transformers, Gemma3TextModel",
    "transformers",
    "atol 5e-2 to 7e-2; a layer 5e-3",
    build,
    dtypes=("float32",),  # norms, rotations and softmax are in float32 on both sides
)
