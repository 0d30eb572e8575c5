"""Masks of padding, what attends to what, positions in sines, norms behind sums."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "padding_is_trained",
        "jnp.where(padding, jax.lax.stop_gradient(table), table)[words]",
        "table[words]",
        "embed, backward:embedding",
        "padding",
    ),
    Bug(
        "padding_of_the_source_seen",
        "embedded(source), padding)",
        "embedded(source), jnp.ones_like(padding))",
        "encoder/attn/out, input",
        "mask",
    ),
    Bug(
        "padding_of_the_memory_seen",
        "memory, padding, own)",
        "memory, jnp.ones_like(padding), own)",
        "decoder/cross/out, input",
        "mask",
    ),
    Bug("future_seen", " & jnp.tril(jnp.ones((TARGET, TARGET), bool))", "", "decoder/attn/out, input", "mask"),
    Bug(
        "padding_of_the_target_seen",
        "own = (target != 0)[:, None, None] & jnp",
        "own = jnp",
        "decoder/attn/out, input",
        "mask",
    ),
    Bug("mask_added_as_one", "jnp.where(mask, scores, -1e9)", "scores - ~mask", "encoder/attn/out, input", "mask"),
    Bug(
        "mask_of_another_large_number",
        "jnp.where(mask, scores, -1e9)",
        "jnp.where(mask, scores, -1e30)",
        equivalent="e to either is zero",
    ),
    Bug(
        "cross_attends_to_itself",
        'name="cross")(x, memory, mask)',
        'name="cross")(x, x, own)',
        "decoder/cross/key, input",
        "order|another",
    ),
    Bug(
        "words_not_scaled",
        "embed(words) * math.sqrt(WIDTH) + pos",
        "embed(words) + pos",
        "encoder/attn/query, input",
        "scaled|mul|factor|left out",
    ),
    Bug(
        "sines_then_cosines",
        "np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, WIDTH)",
        "np.concatenate([np.sin(angles), np.cos(angles)], -1)",
        "encoder/attn/query, input",
        "position|constant|sines",
    ),
    Bug(
        "positions_from_one",
        "np.arange(length)[:, None] *",
        "np.arange(1, length + 1)[:, None] *",
        "encoder/attn/query, input",
        "position|constant|shift",
    ),
    Bug(
        "pre_norm",
        'linen.LayerNorm(epsilon=1e-5, name="norm1")(x + PortedAttention(name="attn")(x, x, mask))',
        'x + PortedAttention(name="attn")(*[linen.LayerNorm(epsilon=1e-5, name="norm1")(x)] * 2, mask)',
        "encoder/attn/query, input",
        "order|norm",
    ),
    Bug(
        "residual_left_out",
        'name="norm2")(x + PortedAttention(name="cross")(x, memory, mask))',
        'name="norm2")(PortedAttention(name="cross")(x, memory, mask))',
        "decoder/norm2, input",
        "residual|add|left out",
    ),
    Bug(
        "gelu_for_relu",
        'linen.relu(linen.Dense(12, name="up")(x))\n        return linen.LayerNorm(epsilon=1e-5, name="norm2")',
        'linen.gelu(linen.Dense(12, name="up")(x))\n        return linen.LayerNorm(epsilon=1e-5, name="norm2")',
        "encoder/down, input",
        "gelu",
    ),
    Bug(
        "epsilon",
        'LayerNorm(epsilon=1e-5, name="norm3")',
        'LayerNorm(epsilon=1e-6, name="norm3")',
        "decoder/norm3, forward",
        "epsilon",
    ),
)
