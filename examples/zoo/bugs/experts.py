"""How experts are weighed."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "shares_in_float32",
        "(weights > 0).astype(x.dtype).mean(0)",
        "(weights > 0).mean(0)",
        "output, input",
        "float32",
    ),
    Bug(
        "not_renormalised",
        "        best = best / best.sum(-1, keepdims=True)\n        weights = jnp",
        "        weights = jnp",
        "output, input",
        "left out|renormal|div",
    ),
    Bug(
        "softmax_over_tokens",
        "jax.nn.softmax(self.router(y), -1)",
        "jax.nn.softmax(self.router(y), 0)",
        "output, input",
        "softmax|axis",
    ),
    Bug(
        "best_one_alone",
        "jax.lax.top_k(probabilities, BEST)",
        "jax.lax.top_k(probabilities, 1)",
        "output, input",
        "topk|top",
    ),
    Bug(
        "all_experts",
        "jax.lax.top_k(probabilities, BEST)",
        "jax.lax.top_k(probabilities, EXPERTS)",
        "output, input",
        "topk|top",
    ),
    Bug(
        "gates_exchanged",
        "nnx.silu(self.w1(x)) * self.w3(x)",
        "self.w1(x) * nnx.silu(self.w3(x))",
        "experts/0/w2, input",
        "exchanged|gate|silu|operand",
    ),
    Bug(
        "experts_exchanged",
        "expert(y) for expert in self.experts], -2)\n        mixed = jnp",
        "self.experts[i](y) for i in (1, 0, 2, 3)], -2)\n        mixed = jnp",
        "output, input",
        "order|exchanged",
    ),
    Bug(
        "router_before_the_norm",
        "self.router(y), -1)\n        best, chosen = jax",
        "self.router(x), -1)\n        best, chosen = jax",
        "router, input",
        "order|input",
    ),
    Bug(
        "residual_of_the_norm",
        "return x + mixed, EXPERTS * jnp",
        "return y + mixed, EXPERTS * jnp",
        "output, input",
        "residual|add",
    ),
    Bug("gate_left_out", "nnx.sigmoid(self.gate(y)) * self.shared(y)", "self.shared(y)", "gate, forward", "left out"),
    Bug(
        "loss_not_scaled",
        "EXPERTS * jnp.sum(probabilities",
        "jnp.sum(probabilities",
        "output, input",
        "scaled|times|averaged, not summed",
    ),
    Bug("tanh_gate", "nnx.sigmoid(self.gate(y))", "nnx.tanh(self.gate(y))", "output, input", "tanh"),
)
