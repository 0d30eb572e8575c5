"""Statistics of a batch: which, over what, divided by what; and a loss."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("epsilon", 'epsilon=1e-5, name="bn1"', 'epsilon=1e-3, name="bn1"', "bn1, forward", "epsilon"),
    Bug(
        "momentum",
        "use_running_average=False, epsilon=1e-5,",
        "use_running_average=False, momentum=0.1, epsilon=1e-5,",
        equivalent="what a norm's own running statistics become is none of the outputs",
    ),
    Bug(
        "momentum_turned_round",
        "mean = 0.9 * mean + 0.1 * x",
        "mean = 0.1 * mean + 0.9 * x",
        "output, input",
        "0\\.9|0\\.1|factor|exchanged|times",
    ),
    Bug("variance_of_the_whole", "x.var((0, 1, 2), ddof=1)", "x.var((0, 1, 2))", "output, input", "var"),
    Bug(
        "variance_of_the_sample",
        "mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))",
        "mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1)",
        "bn2, forward",
        "number of values",
    ),
    Bug(
        "epsilon_outside",
        "jnp.sqrt(variance + 1e-5)",
        "(jnp.sqrt(variance) + 1e-5)",
        "bn2, forward",
        "epsilon is added to the deviation",
    ),
    Bug(
        "scale_left_out",
        "jnp.sqrt(variance + 1e-5) * scale + bias",
        "jnp.sqrt(variance + 1e-5) + bias",
        "bn2, forward",
        "scale is not applied",
    ),
    Bug(
        "over_each_example",
        "mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))",
        "mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)",
        "bn2, forward",
        "statistics are taken over",
    ),
    Bug(
        "smoothing_left_out",
        "0.9 * jax.nn.one_hot(jnp.arange(len(x)) % 4, 4, dtype=x.dtype) + 0.1 / 4",
        "jax.nn.one_hot(jnp.arange(len(x)) % 4, 4, dtype=x.dtype)",
        "output, input",
        "smooth",
    ),
    Bug("smoothing_of_the_others", "+ 0.1 / 4", "+ 0.1 / 3", "output, input", "smooth"),
    Bug(
        "loss_summed", "-jnp.mean(jnp.sum(targets", "-jnp.sum(jnp.sum(targets", "output, input", "scaled|times|sum|mean"
    ),
)
