"""Strides, statistics, the order of norm, sum and ReLU."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "stem_epsilon",
        "self.bn = nnx.BatchNorm(6, momentum=0.9, epsilon=1e-5",
        "self.bn = nnx.BatchNorm(6, momentum=0.9, epsilon=1e-3",
        "bn, forward",
        "epsilon",
    ),
    Bug(
        "stride_in_the_first_convolution",
        "(1, 1), use_bias=False, rngs=rngs)\n        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)\n        self.conv2 = nnx.Conv(width, width, (3, 3), strides=stride, ",
        "(1, 1), strides=stride, use_bias=False, rngs=rngs)\n        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)\n        self.conv2 = nnx.Conv(width, width, (3, 3), ",
        "blocks/1/conv1, forward",
        "stride",
    ),
    Bug("residual_left_out", "nnx.relu(x + shortcut)", "nnx.relu(x)", "blocks/1/downsample/0, input", "residual|add"),
    Bug(
        "shortcut_not_normalised",
        "for layer in self.downsample:",
        "for layer in list(self.downsample)[:1]:",
        "blocks.1.downsample.1, forward",
        "left out",
    ),
    Bug(
        "relu_before_the_sum",
        "nnx.relu(x + shortcut)",
        "nnx.relu(x) + shortcut",
        "blocks/1/downsample/0, input",
        "relu",
    ),
    Bug(
        "relu_behind_the_sum_left_out",
        "nnx.relu(x + shortcut)",
        "x + shortcut",
        "blocks/1/downsample/0, input",
        "relu_missing|left out",
    ),
    Bug(
        "relu_left_out",
        "nnx.relu(self.bn1(self.conv1(x)))",
        "self.bn1(self.conv1(x))",
        "blocks/0/conv2, input",
        "relu_missing|left out",
    ),
    Bug(
        "relu_before_the_norm",
        "self.bn1(self.conv1(x))",
        "self.bn1(nnx.relu(self.conv1(x)))",
        "blocks/0/bn1, input",
        "relu",
    ),
    Bug(
        "norm_before_the_convolution",
        "self.bn2(self.conv2(x))",
        "self.conv2(self.bn2(x))",
        "blocks/0/conv2, input",
        "order",
    ),
    Bug("norm_left_out", "self.bn2(self.conv2(x))", "self.conv2(x)", "blocks.0.bn2, forward", "left out"),
    Bug(
        "variance_for_mean",
        '"running_mean": "mean", "running_var": "var"',
        '"running_mean": "var", "running_var": "mean"',
        "bn, weights:mean",
        "exchanged|running_mean",
    ),
    Bug(
        "statistics_not_converted",
        "node[kind] = array",
        'node[kind] = array if collection == "params" else array * 0 + (kind == "var")',
        "bn, weights:mean",
        "zero|running_mean",
    ),
    Bug(
        "statistics_of_the_deviation",
        "node[kind] = array",
        'node[kind] = array ** 0.5 if kind == "var" else array',
        "bn, weights:var",
        "running_var",
    ),
    Bug(
        "scale_from_one",
        "node[kind] = array",
        'node[kind] = array - 1 if kind == "scale" else array',
        "bn, weights:scale",
        "one|weight",
    ),
    Bug(
        "momentum",
        "self.bn = nnx.BatchNorm(6, momentum=0.9",
        "self.bn = nnx.BatchNorm(6, momentum=0.1",
        equivalent="in evaluation nothing is averaged",
    ),
    Bug("maximum_for_average", "jnp.mean(x, (1, 2))", "jnp.max(x, (1, 2))", "fc, input", "max|pool_kind"),
)
