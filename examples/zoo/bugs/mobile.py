"""Dilation, groups, shuffled channels, two epsilons."""

from examples.zoo.planting import Bug

SHUFFLE = "x.reshape(n, h, w, 3, c // 3).swapaxes(3, 4).reshape(n, h, w, c)"
BUGS = (
    Bug("epsilon_of_pytorchs_default", "epsilon=1e-3", "epsilon=1e-5", "bn1, forward", "epsilon"),
    Bug("epsilon_of_tensorflow", "epsilon=1e-5", "epsilon=1e-3", "bn2, forward", "epsilon"),
    Bug("dilation_left_out", "padding=2, kernel_dilation=2,", "padding=1,", "depthwise, forward", "dilation"),
    Bug("dilation_axes", "kernel_dilation=(1, 2)", "kernel_dilation=(2, 1)", "expand, forward", "dilation"),
    Bug(
        "padding_not_widened",
        "padding=2, kernel_dilation=2,",
        "padding=1, kernel_dilation=2,",
        "depthwise, forward",
        "padding",
    ),
    Bug("relu_for_relu6", "nnx.relu6(3 *", "nnx.relu(3 *", "depthwise, input", "relu"),
    Bug("factor_left_out", "3 * self.bn1", "self.bn1", "depthwise, input", "mul 3|factor|scaled"),
    Bug("shuffle_left_out", f"x = {SHUFFLE}", "pass", "grouped, input", "permuted|shuffle|order"),
    Bug("shuffle_undone", "3, c // 3).swapaxes", "c // 3, 3).swapaxes", "grouped, input", "permuted|shuffle|order"),
    Bug(
        "swish_for_hard_swish", "nnx.hard_swish(self.grouped(x))", "nnx.swish(self.grouped(x))", "expand, input", "silu"
    ),
    Bug("sum_for_mean", "x.mean((1, 2))", "x.sum((1, 2))", "head, input", "scaled|factor|by sum, not by mean"),
    Bug("maximum_for_mean", "x.mean((1, 2))", "x.max((1, 2))", "head, input", "max"),
)
