"""States that aren't passed on, sequences that run the wrong way, functions in the gates."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("state_not_passed_on", "(y, initial_carry=state)", "(y)", "decoder, input", "state"),
    Bug(
        "states_exchanged",
        "state, _ = self.encoder(x)",
        "state = self.encoder(x)[0][::-1]",
        "decoder, input",
        "exchanged|another",
    ),
    Bug(
        "encoder_reversed",
        "return_carry=True)\n        self.decoder",
        "return_carry=True, reverse=True)\n        self.decoder",
        "encoder, input",
        "other direction",
    ),
    Bug("hidden_for_memory", "(memory, _), told", "(_, memory), told", "head, input", "another|exchanged|output"),
    Bug(
        "last_state_left_out",
        "jnp.repeat(memory[:, None]",
        "jnp.repeat(0 * memory[:, None]",
        "head, input",
        "zero|left out|times",
    ),
    Bug(
        "directions_exchanged",
        "[found, ",
        "[found[..., 3:], found[..., :3], ",
        "head, input",
        "order|exchanged|concat|half",
    ),
    Bug(
        "order_not_kept",
        "nnx.Bidirectional(nnx.RNN(cell(SIZE, 3, rngs)), nnx.RNN(cell(SIZE, 3, rngs)))",
        "nnx.Bidirectional(nnx.RNN(cell(SIZE, 3, rngs)), nnx.RNN(cell(SIZE, 3, rngs)), merge_fn=lambda a, b: jnp.concatenate([a, b[:, ::-1]], -1))",
        "head, input",
        "revers|mirror|backward",
    ),
    Bug(
        "relu_for_tanh",
        "nnx.OptimizedLSTMCell(inputs, size, rngs=rngs)",
        "nnx.OptimizedLSTMCell(inputs, size, activation_fn=jax.nn.relu, rngs=rngs)",
        "encoder, forward",
        "relu",
    ),
    Bug(
        "hard_sigmoid",
        "nnx.OptimizedLSTMCell(inputs, size, rngs=rngs)",
        "nnx.OptimizedLSTMCell(inputs, size, gate_fn=jax.nn.hard_sigmoid, rngs=rngs)",
        "encoder, forward",
        "hard_sigmoid",
    ),
)
