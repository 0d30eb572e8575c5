"""Bugs in a function, which has no layers: they show in its outputs, and in its parameters if those are wrong."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("epsilon", "keepdims=True) + 1e-5)", "keepdims=True) + 1e-6)", "output 0, outputs", ""),
    Bug("gelu_by_tanh", ", approximate=False", "", "output 0, outputs", ""),
    Bug(
        "gate_exchanged",
        'jax.nn.gelu(linear(tree["gate"], y), approximate=False) * linear(tree["up"], y)',
        'linear(tree["gate"], y) * jax.nn.gelu(linear(tree["up"], y), approximate=False)',
        "output 0, outputs",
        "",
    ),
    Bug(
        "square_kernel_not_transposed",
        'state[f"{name}.weight"].T',
        '(state[f"{name}.weight"] if name == "up" else state[f"{name}.weight"].T)',
        "output 0, outputs",
        "",
    ),
    Bug(
        "bias_of_another_layer",
        'state[f"{name}.bias"])',
        'state["up.bias" if name == "gate" else f"{name}.bias"])',
        "gate/b, weights",
        "",
    ),
    Bug("bias_left_out", 'return x @ tree["w"] + tree["b"]', 'return x @ tree["w"]', "output 0, outputs", ""),
)
