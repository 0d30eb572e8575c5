"""Transposed convolutions and what they are joined with."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("joined_the_other_way_round", "[y, x], -1", "[x, y], -1", "join, input", "order|permut|concat|exchanged"),
    Bug("joined_with_itself", "[y, x], -1", "[y, y], -1", "join, input", "up1 is used, in PyTorch"),
    Bug(
        "padding_as_in_pytorch",
        'padding=((1, 2), (1, 2)), name="up2"',
        'padding=((2, 1), (2, 1)), name="up2"',
        "up2, forward",
        "padding|begins",
    ),
    Bug(
        "kernel_turned",
        "padding=((2, 2), (2, 2)),",
        "padding=((2, 2), (2, 2)), transpose_kernel=True,",
        equivalent="the weights are moved to where this setting has them",
    ),
    Bug(
        "pool_left_out",
        "        y = linen.max_pool(y, (3, 3), (1, 1), padding=((1, 1), (1, 1)))\n",
        "",
        "middle, input",
        "passes its input on|left out",
    ),
    Bug(
        "pool_padded_with_zeros",
        "linen.max_pool(y, (3, 3), (1, 1), padding=((1, 1), (1, 1)))",
        "linen.max_pool(jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 1))",
        "middle, input",
        "pool_zero_padding",
    ),
    Bug(
        "relu_for_leaky_relu",
        'leaky(linen.Conv(6, (3, 3), padding=1, name="middle")(y))',
        'linen.relu(linen.Conv(6, (3, 3), padding=1, name="middle")(y))',
        "up1, input",
        "activation_relu",
    ),
    Bug("tanh_left_out", "jnp.tanh(linen.Conv", "(linen.Conv", "output, input", "tanh"),
    Bug("sigmoid_for_tanh", "jnp.tanh(linen.Conv", "linen.sigmoid(linen.Conv", "output, input", "sigmoid"),
    Bug(
        "skip_before_the_activation",
        'x = leaky(linen.Conv(6, (3, 3), padding=1, name="enter")(x))\n        y = linen.Conv(6, (4, 4), strides=2, padding=1, name="down")(x)',
        'x = linen.Conv(6, (3, 3), padding=1, name="enter")(x)\n        y = linen.Conv(6, (4, 4), strides=2, padding=1, name="down")(leaky(x))',
        "join, input",
        "enter is used, in PyTorch|left out",
    ),
    Bug(
        "bias_left_out",
        "padding=((2, 2), (2, 2)), name",
        "padding=((2, 2), (2, 2)), use_bias=False, name",
        "up1, forward",
        "bias",
    ),
)
