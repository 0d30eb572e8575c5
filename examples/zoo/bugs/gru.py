"""Gates in another order, biases that go astray, a last state that is another one."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("gate_order", '("r", "z", "n")', '("z", "r", "n")', "gru, weights:kernel_ih", "gate"),
    Bug("state_bias_left_out", "of_input[i] + of_state[i] if", "of_input[i] if", "gru, weights:bias", "bias_hh"),
    Bug(
        "last_bias_in_the_sum",
        'of_input[i] + of_state[i] if name != "n" else of_input[i]',
        "of_input[i] + of_state[i]",
        "gru, weights:bias",
        "bias",
    ),
    Bug(
        "reversed", "return_carry=True, name", "return_carry=True, reverse=True, name", "gru, input", "other direction"
    ),
    Bug(
        "last_state_of_the_sequence",
        "y.mean(1), last]",
        "y.mean(1), y[:, 0]]",
        "head, input",
        "first|another|place|index",
    ),
    Bug("sum_for_mean", "y.mean(1)", "y.sum(1)", "head, input", "sum|times|divided"),
    Bug(
        "kernels_not_transposed",
        'f"h{name}": {"kernel": kernel.T}',
        'f"h{name}": {"kernel": kernel}',
        "gru, weights:kernel_hh",
        "transposed",
    ),
)
