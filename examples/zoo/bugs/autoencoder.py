"""Noise, deviations, unflattening, shuffled pixels."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "variance_for_deviation",
        "jnp.exp(0.5 * log_variance) * noise",
        "jnp.exp(log_variance) * noise",
        "enter, input",
        "0.5|factor|scaled|left out",
    ),
    Bug("noise_left_out", "mean + jnp.exp(0.5 * log_variance) * noise", "mean", "enter, input", "left out|noise|add"),
    Bug("deviation_left_out", "jnp.exp(0.5 * log_variance) * noise", "noise", "enter, input", "left out|exp|mul"),
    Bug(
        "mean_and_variance",
        "mean, log_variance = self.mean(h), self.log_variance(h)",
        "log_variance, mean = self.mean(h), self.log_variance(h)",
        "enter, input",
        "exchanged|order",
    ),
    Bug(
        "unflattened_as_maps_here",
        "reshape(-1, 4, 2, 3).transpose(0, 2, 3, 1)",
        "reshape(-1, 2, 3, 4)",
        "up1, input",
        "order|reshape|flatten|view",
    ),
    Bug(
        "pixels_depth_first",
        "c // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)",
        "factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)",
        "up2, input",
        "shuffle|order|pixel|permut",
    ),
    Bug(
        "pixels_transposed",
        "transpose(0, 1, 4, 2, 5, 3)",
        "transpose(0, 1, 5, 2, 4, 3)",
        "up2, input",
        "shuffle|order|pixel|permut|transpos",
    ),
    Bug(
        "sigmoid_left_out",
        "nnx.sigmoid(pixel_shuffle(self.up2(h), 2))",
        "pixel_shuffle(self.up2(h), 2)",
        "output, input",
        "sigmoid",
    ),
    Bug("tanh_for_sigmoid", "nnx.sigmoid(pixel", "nnx.tanh(pixel", "output, input", "tanh"),
    Bug("relu_left_out", "nnx.relu(self.enter(z))", "self.enter(z)", "up1, input", "relu_missing|left out"),
    Bug("divergence_averaged", "-0.5 * jnp.sum(", "-0.5 * jnp.mean(", "output, input", "scaled|times|mean"),
    Bug("divergence_not_halved", "-0.5 * jnp.sum(", "-jnp.sum(", "output, input", "scaled|times|factor"),
    Bug(
        "outputs_exchanged",
        "return nnx.sigmoid(pixel_shuffle(self.up2(h), 2)), divergence",
        "return divergence, nnx.sigmoid(pixel_shuffle(self.up2(h), 2))",
        "output, input",
        "order|exchanged|shape",
    ),
)
