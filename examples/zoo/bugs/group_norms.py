"""Groups, epsilons, deviations of a sample."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("group_epsilon", "num_groups=4, epsilon=1e-6", "num_groups=4, epsilon=1e-5", "norm1, forward", "epsilon"),
    Bug("instance_epsilon", "InstanceNorm(epsilon=1e-5, ", "InstanceNorm(", "norm2, forward", "epsilon"),
    Bug("groups", "num_groups=4, epsilon=1e-6", "num_groups=2, epsilon=1e-6", "norm1, forward", "groups"),
    Bug(
        "channels_in_a_group",
        "num_groups=4, epsilon=1e-6",
        "num_groups=None, group_size=4, epsilon=1e-6",
        "norm1, forward",
        "groups",
    ),
    Bug(
        "layer_for_group_norm",
        "linen.GroupNorm(num_groups=1, epsilon=1e-5,",
        "linen.LayerNorm(epsilon=1e-5,",
        "norm3, forward",
        "axes|position",
    ),
    Bug(
        "layer_epsilon", 'LayerNorm(epsilon=1e-5, name="norm4")', 'LayerNorm(name="norm4")', "norm4, forward", "epsilon"
    ),
    Bug(
        "deviation_of_the_whole",
        "keepdims=True, ddof=1",
        "keepdims=True",
        "norm5, forward",
        "variance|deviation|scaled",
    ),
    Bug("epsilon_inside", "(deviation + 1e-6)", "jnp.sqrt(deviation**2 + 1e-6)", "norm5, forward", "epsilon"),
    Bug("variance_of_the_whole", "jnp.var(x, 0, ddof=1)", "jnp.var(x, 0)", "fc2, input", "variance|var|unbiased"),
    Bug("over_the_features", "jnp.var(x, 0, ddof=1)", "jnp.var(x, 1, ddof=1, keepdims=True)", "fc2, input", "axis"),
    Bug(
        "norm_behind_the_activation",
        'linen.silu(linen.GroupNorm(num_groups=4, epsilon=1e-6, name="norm1")(x))',
        'linen.GroupNorm(num_groups=4, epsilon=1e-6, name="norm1")(linen.silu(x))',
        "norm1, input",
        "silu|order|activation",
    ),
    Bug("slope", "0.2 * x", "0.01 * x", "conv3, input", "slope"),
    Bug("pooled_with_the_batch", "x.mean((1, 2))", "x.mean((0, 1))", "norm4, input", "axis|axes|mean"),
)
