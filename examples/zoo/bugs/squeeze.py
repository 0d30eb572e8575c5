"""Gates, branches and what is joined in which order."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("hard_sigmoid", "x * linen.sigmoid(", "x * jax.nn.hard_sigmoid(", "mixed/three_reduce, input", "hard"),
    Bug("sigmoid_left_out", "x * linen.sigmoid(linen", "x * (linen", "mixed/three_reduce, input", "sigmoid"),
    Bug(
        "gate_added",
        "x * linen.sigmoid(linen",
        "x + linen.sigmoid(linen",
        "mixed/three_reduce, input",
        "add|sum|product",
    ),
    Bug(
        "squeezed_by_maximum",
        "jnp.mean(x, (1, 2), keepdims=True)",
        "jnp.max(x, (1, 2), keepdims=True)",
        "se/fc1, input",
        "max",
    ),
    Bug(
        "relu_left_out",
        'linen.relu(linen.Conv(4, (1, 1), name="fc1")(s))',
        'linen.Conv(4, (1, 1), name="fc1")(s)',
        "se/fc2, input",
        "relu_missing|left out",
    ),
    Bug(
        "swish_for_relu",
        'linen.relu(linen.Conv(4, (1, 1), name="fc1")(s))',
        'linen.swish(linen.Conv(4, (1, 1), name="fc1")(s))',
        "se/fc2, input",
        "silu|swish",
    ),
    Bug("branches_exchanged", "[one, three, pooled]", "[three, one, pooled]", "grow1, input", "order|permut|concat"),
    Bug("padding_counted", ", count_include_pad=False", "", "mixed/pooled, input", "pool_area"),
    Bug(
        "maximum_for_average",
        'linen.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)',
        'linen.max_pool(x, (3, 3), (1, 1), "SAME")',
        "mixed/pooled, input",
        "pool_kind",
    ),
    Bug(
        "relu_on_one_branch",
        "linen.relu(jnp.concatenate([one, three, pooled], -1))",
        "jnp.concatenate([linen.relu(one), three, linen.relu(pooled)], -1)",
        "grow1, input",
        "relu",
    ),
    Bug(
        "relu_after_reduction_left_out",
        'linen.relu(linen.Conv(3, (1, 1), name="three_reduce")(x))',
        'linen.Conv(3, (1, 1), name="three_reduce")(x)',
        "mixed/three, input",
        "relu_missing|left out",
    ),
    Bug(
        "new_maps_in_front",
        "[x, linen.relu(linen.Conv(4, (3, 3), padding=1, name=name)(x))]",
        "[linen.relu(linen.Conv(4, (3, 3), padding=1, name=name)(x)), x]",
        "grow2, input",
        "order|permut|concat",
    ),
    Bug(
        "pool_same",
        "linen.max_pool(x, (3, 3), (2, 2))",
        'linen.max_pool(x, (3, 3), (2, 2), "SAME")',
        "head, input",
        "padding_same|pool",
    ),
)
