"""Strides, paddings and pools with three directions."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("padding_of_the_depth", "((0, 0), (1, 1), (1, 1))", "((1, 1), (1, 1), (0, 0))", "conv2, forward", "padding"),
    Bug("stride_of_the_depth", "strides=(1, 2, 2), padding", "strides=(2, 2, 1), padding", "conv2, forward", "stride"),
    Bug("same_padding", "padding=((0, 0), (1, 1), (1, 1))", 'padding="SAME"', "conv2, forward", "padding"),
    Bug("batch_epsilon", "BatchNorm(6, epsilon=1e-5", "BatchNorm(6, epsilon=1e-3", "norm1, forward", "epsilon"),
    Bug("groups", "num_groups=2", "num_groups=3", "norm2, forward", "groups"),
    Bug("group_epsilon", "num_groups=2, epsilon=1e-5", "num_groups=2", "norm2, forward", "epsilon"),
    Bug("pooled_in_depth", "(1, 2, 2), (1, 2, 2))", "(2, 2, 1), (2, 2, 1))", "conv2, input", "pool_size|window|pool"),
    Bug("pool_with_stride_two", "(2, 2, 2), (1, 1, 1))", "(2, 2, 2), (2, 2, 2))", "up, input", "stride"),
    Bug(
        "kernel_turned",
        'padding="VALID", rngs',
        'padding="VALID", transpose_kernel=False, rngs',
        equivalent="that is what it is by default",
    ),
    Bug(
        "bias_left_out",
        "nnx.Conv(2, 6, (3, 3, 3), padding=1,",
        "nnx.Conv(2, 6, (3, 3, 3), padding=1, use_bias=False,",
        "conv1, forward",
        "bias",
    ),
    Bug("relu_for_elu", "nnx.elu(self", "nnx.relu(self", "up, input", "relu"),
)
