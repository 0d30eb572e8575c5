"""flaxmodels' GPT-2 beside transformers'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from examples.ports.port import FLAXMODELS, Output, Pair, Port, imported, randomised


def build(theirs: Any) -> Pair:
    """Two layers of two heads. The port calls `jnp.reshape` with a name that JAX dropped, and is given it back."""
    transformers = imported("transformers")

    def reshape(x: Any, newshape: Any) -> Any:
        return jnp.reshape(x, newshape)

    theirs.jnp = SimpleNamespace(**{**vars(jnp), "reshape": reshape})
    config = transformers.GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    reference = randomised(Output(transformers.GPT2Model(config), "last_hidden_state", use_cache=False))
    tokens = np.random.default_rng(0).integers(0, 40, (2, 9))
    return Pair(theirs.GPT2Model(config), reference, (tokens,))


PORT = Port(
    "flaxmodels_gpt2",
    FLAXMODELS,
    "flaxmodels.gpt2.gpt2",
    "transformers, GPT2Model",
    "transformers",
    "mean difference < 1e-4 to 1e-3",
    build,
    dtypes=("float32",),
)
