"""bonsai's Qwen3 beside transformers'."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, randomised


def build(theirs: Any) -> Pair:
    """Two layers; four heads that share two keys."""
    transformers = imported("transformers")
    config = transformers.Qwen3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, rope_theta=1_000_000, tie_word_embeddings=False,
    )  # fmt: skip
    reference = randomised(Output(transformers.Qwen3ForCausalLM(config), use_cache=False))
    ours = theirs.ModelConfig(
        num_layers=2, vocab_size=50, emb_dim=32, mlp_dim=48, num_heads=4, head_dim=8, num_kv_heads=2,
        rope_theta=1_000_000, rope_scaling_factor=8.0, local_rope_theta=1e4, norm_eps=1e-6, tie_word_embeddings=False,
    )  # fmt: skip

    class Fresh(nnx.Module):
        """The port with an empty cache."""

        def __init__(self) -> None:
            self.model = theirs.Qwen3(ours, rngs=nnx.Rngs(0))

        def __call__(self, tokens: Any) -> Any:
            cache = theirs.init_cache(ours, tokens.shape[0], tokens.shape[1], 0, jnp.float32)
            return self.model(tokens, cache=cache, segment_ids=jnp.ones_like(tokens))

    tokens = np.random.default_rng(0).integers(1, 50, (2, 8))
    return Pair(Fresh(), reference, (tokens,))


PORT = Port(
    "qwen3",
    BONSAI,
    "bonsai.models.qwen3.modeling",
    "transformers, Qwen3ForCausalLM",
    "transformers",
    "rtol = atol = 1e-3",
    build,
    dtypes=("float32",),  # norms, rotations and softmax are in float32 on both sides
)
