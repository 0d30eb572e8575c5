"""bonsai's Mamba 2 beside transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, randomised


def build(theirs: Any) -> Pair:
    """Two layers of four heads, in chunks of four; as a function, since the two cut their convolutions differently."""
    transformers = imported("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 16, "state_size": 8, "head_dim": 8, "chunk_size": 4, "expand": 2}
    config = transformers.Mamba2Config(
        **sizes, num_heads=4, n_groups=1, num_hidden_layers=2, time_step_limit=(0.0, float("inf")),
        tie_word_embeddings=False, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.Mamba2ForCausalLM(config)
    scales = {name: value.detach().clone() for name, value in model.named_parameters() if name.endswith("A_log")}
    reference = Output(randomised(model), use_cache=False)
    model.load_state_dict(scales, strict=False)  # states that decay
    ours = theirs.ModelConfig(**sizes, num_hidden_layers=2, tie_word_embeddings=False)
    port = theirs.Mamba2ForCausalLM(ours, rngs=nnx.Rngs(0))
    graph, state = nnx.split(port)
    parameters = {"/".join(map(str, path)): converted(model, path) for path, _ in state.flat_state()}

    def logits(parameters: dict[str, Any], tokens: Any) -> Any:
        flat = [(path, variable.replace(parameters["/".join(map(str, path))])) for path, variable in state.flat_state()]
        return nnx.merge(graph, nnx.State.from_flat_path(flat))(tokens)["logits"]

    tokens = np.random.default_rng(0).integers(1, 40, (2, 10))
    return Pair(logits, reference, (tokens,), {"variables": parameters})


def converted(model: Any, path: tuple) -> Any:
    """The reference's value of a parameter of the port's."""
    names = {"embedder": "embeddings", "final_norm": "norm_f", "kernel": "weight", "embedding": "weight"}
    parts = [str(names.get(part, part)) for part in path]
    if "conv1d" in parts:
        parts.remove("conv")
    array = model.get_parameter(".".join(parts)).detach().numpy()
    return array.T if path[-1] == "kernel" else array


PORT = Port(
    "mamba2",
    BONSAI,
    "bonsai.models.mamba2.modeling",
    "transformers, Mamba2ForCausalLM",
    "transformers",
    "atol 1e-1 to 2e-1",
    build,
    dtypes=("float32",),  # norms and states are in float32 on both sides
)
