"""Layer scale, norms over channels, GELU."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("layer_scale_left_out", "x + gamma * linen", "x + linen", "down_norm, input", "gamma|scale|mul|left out"),
    Bug(
        "layer_scale_of_the_sum",
        'x + gamma * linen.Dense(width, name="pwconv2")(y)',
        'gamma * (x + linen.Dense(width, name="pwconv2")(y))',
        "down_norm, input",
        "gamma|order|scale",
    ),
    Bug("gelu_by_tanh", ", approximate=False", "", "block1/pwconv2, input", "gelu_tanh"),
    Bug(
        "stem_epsilon",
        'LayerNorm(epsilon=1e-6, name="stem_norm")',
        'LayerNorm(epsilon=1e-5, name="stem_norm")',
        "stem_norm, forward",
        "epsilon",
    ),
    Bug(
        "norm_over_the_map",
        'LayerNorm(epsilon=1e-6, name="down_norm")',
        'LayerNorm(epsilon=1e-6, reduction_axes=(1, 2, 3), name="down_norm")',
        "down_norm, forward",
        "axes|axis",
    ),
    Bug("window_not_centred", "padding=3,", "padding=((2, 4), (2, 4)),", "block1/dwconv, forward", "padding"),
    Bug(
        "norm_before_the_convolution",
        'y = linen.Conv(width, (7, 7), padding=3, feature_group_count=width, name="dwconv")(x)\n        y = linen.LayerNorm(epsilon=1e-6, name="norm")(y)',
        'y = linen.LayerNorm(epsilon=1e-6, name="norm")(x)\n        y = linen.Conv(width, (7, 7), padding=3, feature_group_count=width, name="dwconv")(y)',
        "block1/dwconv, input",
        "order",
    ),
    Bug(
        "residual_of_the_convolution",
        'y = linen.LayerNorm(epsilon=1e-6, name="norm")(y)',
        'x, y = y, linen.LayerNorm(epsilon=1e-6, name="norm")(y)',
        "down_norm, input",
        "residual|add",
    ),
    Bug("pooled_by_maximum", "jnp.mean(x, (1, 2))", "jnp.max(x, (1, 2))", "norm, input", "max"),
    Bug("pooled_over_the_width", "jnp.mean(x, (1, 2))", "jnp.mean(x, 1)[:, 0]", "norm, input", "axis|axes|mean|row"),
    Bug(
        "norm_behind_the_pool_left_out",
        'linen.LayerNorm(epsilon=1e-6, name="norm")(jnp.mean(x, (1, 2)))',
        'jnp.mean(linen.LayerNorm(epsilon=1e-6, name="norm")(x), (1, 2))',
        "norm, input",
        "order|mean",
    ),
)
