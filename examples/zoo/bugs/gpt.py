"""The mask, positions, tied weights, and their conversion."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "mask_off_by_one",
        "jnp.tril(jnp.ones((t, t), bool))",
        "jnp.tril(jnp.ones((t, t), bool), 1)",
        "h_0/out, input",
        "mask",
    ),
    Bug("mask_left_out", "jnp.where(seen, scores, -jnp.inf)", "scores", "h_0/out, input", "mask"),
    Bug(
        "mask_turned_round",
        "jnp.tril(jnp.ones((t, t), bool))",
        "jnp.triu(jnp.ones((t, t), bool))",
        "h_0/out, input",
        "mask",
    ),
    Bug("mask_of_zeros", "-jnp.inf", "0.0", "h_0/out, input", "mask"),
    Bug("scale_left_out", " / math.sqrt(q.shape[-1])\n        seen", "\n        seen", "h_0/out, input", "scale"),
    Bug(
        "scale_not_the_root",
        "/ math.sqrt(q.shape[-1])\n        seen",
        "/ q.shape[-1]\n        seen",
        "h_0/out, input",
        "scale",
    ),
    Bug(
        "positions_from_one",
        "jnp.arange(words.shape[1])",
        "jnp.arange(1, words.shape[1] + 1) % LENGTH",
        "wpe, input",
        "rolled by -1",
    ),
    Bug(
        "positions_left_out", "wte(words) + linen", "wte(words) + 0 * linen", "h_0/ln_1, input", "left out|missing|wpe"
    ),
    Bug("gelu_by_erf", "approximate=True", "approximate=False", "h_0/c_proj, input", "gelu"),
    Bug("last_norm_left_out", 'x = linen.LayerNorm(epsilon=1e-5, name="ln_f")(x)', "", "ln_f, forward", "left out"),
    Bug(
        "output_layer_not_tied",
        "x @ wte.embedding.T",
        "x @ jax.lax.stop_gradient(wte.embedding).T",
        "wte, gradient of embedding, end to end",
        "",
    ),
    Bug("words_scaled", "x = wte(words) +", "x = wte(words) * math.sqrt(WIDTH) +", "h_0/ln_1, input", "scaled|times"),
    Bug(
        "query_and_key_converted",
        'if path[-1] in ("wte", "wpe"):',
        'if path[-1] in ("query", "key") and kind == "weight":\n            other = dict(query="key", key="query")[path[-1]]\n            params[path[0]].setdefault(other, {})["kernel"] = array.T\n        elif path[-1] in ("wte", "wpe"):',
        "h_0/query, weights:kernel",
        "key|exchanged",
    ),
    Bug(
        "kernels_not_transposed",
        'node["kernel" if array.ndim == 2 else "scale"] = array.T',
        'node["kernel" if array.ndim == 2 else "scale"] = array if path[-1] == "out" else array.T',
        "h_0/out, weights:kernel",
        "kernel_transposed",
    ),
    Bug(
        "embedding_transposed",
        'node["embedding"] = array',
        'node["embedding"] = array.T.reshape(array.shape)',
        "wte, weights:embedding",
        "transposed|reshaped",
    ),
    Bug(
        "heads_behind_values",
        'mixed = jnp.einsum("nhqk,nhkd->nqhd", weights, v)',
        'mixed = jnp.einsum("nhqk,nhkd->nqdh", weights, v)',
        "h_0/out, input",
        "head",
    ),
    Bug("second_norm_left_out", 'linen.LayerNorm(epsilon=1e-5, name="ln_2")(x)', "x", "h.0.ln_2, forward", "left out"),
    Bug(
        "epsilon",
        'linen.LayerNorm(epsilon=1e-5, name="ln_f")',
        'linen.LayerNorm(name="ln_f")',
        "ln_f, forward",
        "epsilon",
    ),
)
