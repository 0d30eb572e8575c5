"""Rotary positions, groups of heads, gates, RMSNorm."""

from examples.zoo.planting import Bug

OUT = "layers/0/attn/o_proj, input"
BUGS = (
    Bug(
        "rms_epsilon",
        "self.input_norm, self.attn = nnx.RMSNorm(WIDTH, epsilon=1e-5",
        "self.input_norm, self.attn = nnx.RMSNorm(WIDTH, epsilon=1e-6",
        "layers/0/input_norm, forward",
        "epsilon",
    ),
    Bug(
        "layer_for_rms_norm",
        "self.post_norm = nnx.RMSNorm(WIDTH, epsilon=1e-5,",
        "self.post_norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, use_bias=False,",
        "layers/0/post_norm, forward",
        "mean",
    ),
    Bug(
        "rotary_pairs_neighbours",
        "one, other = x[..., : DIM // 2], x[..., DIM // 2 :]\n    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], -1)",
        "one, other = x[..., ::2], x[..., 1::2]\n    return jnp.stack([one * cos - other * sin, other * cos + one * sin], -1).reshape(x.shape)",
        OUT,
        "rotary|interleaved|halves",
    ),
    Bug(
        "rotary_turns_back",
        "one * cos - other * sin, other * cos + one * sin",
        "one * cos + other * sin, other * cos - one * sin",
        OUT,
        "rotary",
    ),
    Bug("rotary_base", "1.0 / BASE", "1.0 / 500000.0", OUT, "rotary|base"),
    Bug("rotary_of_the_query_alone", "q, k = turn(q), turn(k)", "q = turn(q)", OUT, "rotary"),
    Bug(
        "rotary_from_one",
        "jnp.arange(x.shape[1], dtype=x.dtype)[:",
        "(1 + jnp.arange(x.shape[1], dtype=x.dtype))[:",
        equivalent="only differences of positions count",
    ),
    Bug("rotary_left_out", "q, k = turn(q), turn(k)", "pass", OUT, "rotary"),
    Bug(
        "rotary_frequencies",
        "jnp.arange(0, DIM, 2, dtype=x.dtype) / DIM",
        "jnp.arange(DIM // 2, dtype=x.dtype) / DIM",
        OUT,
        "rotary|frequen",
    ),
    Bug(
        "groups_tiled",
        "jnp.repeat(y, HEADS // GROUPS, axis=2)",
        "jnp.tile(y, (1, 1, HEADS // GROUPS, 1))",
        OUT,
        "head|group|tile|repeat",
    ),
    Bug("scale_left_out", " / math.sqrt(DIM)", "", OUT, "scale"),
    Bug(
        "mask_of_the_present",
        "jnp.arange(t)[:, None] >= jnp.arange(t)\n        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)",
        "jnp.arange(t)[:, None] > jnp.arange(t)\n        weights = jax.nn.softmax(jnp.where(seen, scores, -1e9), -1)",
        OUT,
        "mask",
    ),
    Bug("mask_left_out", "jnp.where(seen, scores, -jnp.inf)", "scores", OUT, "mask"),
    Bug(
        "gate_exchanged",
        "jax.nn.silu(self.gate_proj(y)) * self.up_proj(y)",
        "self.gate_proj(y) * jax.nn.silu(self.up_proj(y))",
        "layers/0/down_proj, input",
        "gate|exchanged|other operand|other branch|silu",
    ),
    Bug("gelu_for_silu", "jax.nn.silu(self.gate", "jax.nn.gelu(self.gate", "layers/0/down_proj, input", "gelu"),
    Bug(
        "gate_added",
        "jax.nn.silu(self.gate_proj(y)) * self",
        "jax.nn.silu(self.gate_proj(y)) + self",
        "layers/0/down_proj, input",
        "add|sum|product",
    ),
    Bug(
        "residual_of_the_norm",
        "return x + self.down_proj(jax",
        "return y + self.down_proj(jax",
        "layers/1/input_norm, input",
        "residual|add",
    ),
    Bug(
        "residual_left_out",
        "x = x + self.attn(self.input_norm(x))\n        y = self.post_norm(x)\n        return x + self.down_proj(jax",
        "x = self.attn(self.input_norm(x))\n        y = self.post_norm(x)\n        return x + self.down_proj(jax",
        "layers/0/post_norm, input",
        "residual|add|left out",
    ),
)
