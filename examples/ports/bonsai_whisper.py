"""bonsai's Whisper beside transformers': encoder and decoder, which the port doesn't join yet."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import Tensor, nn

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


class Positions(nn.Module):
    """The reference's embedding of positions, which looks at its tokens' shape alone, as a layer that is called."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table.weight, freeze=False)

    def forward(self, tokens: Tensor, **ignored: Any) -> Tensor:
        """(N, T) to (T, features)."""
        return self.table(torch.arange(tokens.shape[1]))


def build(theirs: Any) -> Pair:
    """One layer each, two heads."""
    transformers = imported("transformers")
    sizes = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8,
        "max_source_positions": 12, "max_target_positions": 6, "vocab_size": 30,
    }  # fmt: skip
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(**sizes, **tokens)
    model = transformers.WhisperModel(config)
    model.decoder.embed_positions = Positions(model.decoder.embed_positions)
    reference = randomised(
        Output(model, "last_hidden_state", names=("input_features", "decoder_input_ids"), use_cache=False)
    )
    ours = dataclasses.replace(theirs.ModelConfig.whisper_tiny(), max_length=6, **sizes)

    class Joined(nnx.Module):
        """The port's two halves, as its reference joins them."""

        def __init__(self) -> None:
            self.model = theirs.Whisper(ours, rngs=nnx.Rngs(0))

        def __call__(self, sounds: Any, tokens: Any) -> Any:
            mask = jnp.tril(jnp.ones((1, 1, tokens.shape[1], tokens.shape[1]), bool))
            return self.model.decoder(tokens, mask, self.model.encoder(sounds), None, False)

    sounds = normal(2, 8, 24)
    said = np.random.default_rng(0).integers(3, 30, (2, 6))
    return Pair(Joined(), reference, (sounds, said), {"flax_inputs": (sounds.swapaxes(1, 2), said)})


PORT = Port(
    "whisper",
    BONSAI,
    "bonsai.models.whisper.modeling",
    "transformers, WhisperModel",
    "transformers",
    "rtol = atol = 1e-2 to 5e-2; parts 1e-5",
    build,
    dtypes=("float32",),  # nnx's attention takes its softmax in float32
)
