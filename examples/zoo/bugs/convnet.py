"""Padding, pools, flattening, and the conversion of kernels."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("same_for_padding", "strides=2, padding=2", 'strides=2, padding="SAME"', "conv1, forward", "padding_same"),
    Bug("padding_left_out", "(3, 3), padding=1,", '(3, 3), padding="VALID",', "conv2, forward", "padding"),
    Bug("same_for_valid", 'padding="VALID"', 'padding="SAME"', "conv3, forward", "padding"),
    Bug("stride_left_out", "strides=2, ", "", "conv1, forward", "stride"),
    Bug(
        "bias_left_out",
        'padding=1, name="conv2"',
        'padding=1, use_bias=False, name="conv2"',
        "conv2, forward",
        "bias_missing",
    ),
    Bug("pool_of_two", "(3, 3), (2, 2), padding=((1, 1), (1, 1))", "(2, 2), (2, 2)", "conv2, input", "pool_size"),
    Bug("pool_not_padded", "(3, 3), (2, 2), padding=((1, 1), (1, 1))", "(3, 3), (2, 2)", "conv2, input", "padding"),
    Bug(
        "padding_not_counted",
        "(1, 1), padding=((1, 1), (1, 1)))",
        "(1, 1), padding=((1, 1), (1, 1)), count_include_pad=False)",
        "conv3, input",
        "pool_area",
    ),
    Bug("maximum_for_average", "linen.avg_pool", "linen.max_pool", "conv3, input", "pool_kind"),
    Bug(
        "relu_left_out",
        'linen.relu(linen.Conv(8, (3, 3), padding=1, name="conv2")(x))',
        'linen.Conv(8, (3, 3), padding=1, name="conv2")(x)',
        "conv3, input",
        "relu_missing",
    ),
    Bug("floor_for_ceil", "padding=((0, 1), (0, 0))", 'padding="VALID"', "fc1, input", "ceil_mode"),
    Bug(
        "window_hangs_over_at_the_top",
        "padding=((0, 1), (0, 0))",
        "padding=((1, 0), (0, 0))",
        "fc1, input",
        "padding_side",
    ),
    Bug(
        "kernel_hw",
        "array.transpose(2, 3, 1, 0)  #",
        "array.transpose(3, 2, 1, 0)  #",
        "conv1, weights:kernel",
        "kernel_hw_exchanged",
    ),
    Bug(
        "kernel_flipped",
        "array.transpose(2, 3, 1, 0)  #",
        "array.transpose(2, 3, 1, 0)[::-1, ::-1]  #",
        "conv1, weights:kernel",
        "kernel_flipped",
    ),
    Bug("flattened_rows_kept", 'elif layer == "fc1" and', "elif False and", "fc1, weights:kernel", "fc_order"),
    Bug(
        "square_kernel_not_transposed",
        "array = array.T",
        'array = array if layer == "fc2" else array.T',
        "fc2, weights:kernel",
        "kernel_transposed",
    ),
    Bug(
        "relu_too_many",
        'return linen.Dense(4, name="fc3")(x)',
        'return linen.relu(linen.Dense(4, name="fc3")(x))',
        "output, input",
        "relu_added",
    ),
    Bug(
        "relu_behind_the_pool",
        'linen.relu(linen.Conv(8, (5, 5), strides=2, padding=2, name="conv1")(x))\n        x = linen.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))',
        'linen.Conv(8, (5, 5), strides=2, padding=2, name="conv1")(x)\n        x = linen.relu(linen.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))))',
        equivalent="a maximum commutes with ReLU",
    ),
    Bug(
        "relu_behind_the_average",
        'linen.relu(linen.Conv(8, (3, 3), padding=1, name="conv2")(x))\n        x = linen.avg_pool(x, (3, 3), (1, 1), padding=((1, 1), (1, 1)))',
        'linen.Conv(8, (3, 3), padding=1, name="conv2")(x)\n        x = linen.relu(linen.avg_pool(x, (3, 3), (1, 1), padding=((1, 1), (1, 1))))',
        "conv3, input",
        "order",
    ),
)
