"""Activations that are nearly the right ones."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("gelu_by_tanh", "approximate=False", "approximate=True", "layers/1, input", "gelu_tanh"),
    Bug("swish_1702", "jax.nn.silu,", "lambda x: x * jax.nn.sigmoid(1.702 * x),", "layers/3, input", "gelu_quick"),
    Bug("hard_for_soft_sigmoid", "jax.nn.sigmoid,", "jax.nn.hard_sigmoid,", "layers/4, input", "hardsigmoid"),
    Bug(
        "keras_hard_sigmoid",
        "jax.nn.hard_sigmoid,",
        "lambda x: jnp.clip(0.2 * x + 0.5, 0, 1),",
        "layers/6, input",
        "0.2",
    ),
    Bug("elu_for_selu", "jax.nn.selu,", "jax.nn.elu,", "layers/17, input", "activation_elu"),
    Bug("tanh_for_softsign", "jax.nn.soft_sign,", "jnp.tanh,", "layers/8, input", "activation_tanh"),
    Bug("leaky_slope", "0.01 * x),", "0.2 * x),", "layers/11, input", "slope 0.2"),
    Bug("leaky_slope_odd", "0.01 * x),", "0.3 * x),", "layers/11, input", "slope"),
    Bug(
        "leaky_at_zero",
        "lambda x: jnp.where(x > 0, x, 0.01 * x),",
        "jax.nn.leaky_relu,",
        "layers/10, cotangent at ties",
        "exactly 0",
    ),
    Bug("log_of_sigmoid_missing", "jax.nn.log_sigmoid,", "jax.nn.sigmoid,", "layers/13, input", "sigmoid"),
    Bug("relu_for_relu6", "jax.nn.relu6,", "jax.nn.relu,", "layers/15, input", "activation_relu"),
    Bug("swish_for_hard_swish", "jax.nn.hard_swish,", "jax.nn.swish,", "layers/18, input", "silu"),
    Bug("softmax_axis", "softmax(x, axis=1)", "softmax(x, axis=0)", "layers/20, input", "axis"),
    Bug("elu_alpha", "jax.nn.elu(x, alpha=0.5)", "jax.nn.elu(x)", "layers/21, input", "alpha|ELU"),
    Bug("softmax_for_log_softmax", "jax.nn.log_softmax(", "jax.nn.softmax(", "layers/22, input", "softmax"),
    Bug("softplus_beta", "jax.nn.softplus(2 * x) / 2", "jax.nn.softplus(x)", "output, input", "beta|softplus"),
    Bug("softplus_not_divided", "(2 * x) / 2", "(2 * x)", "output, input", "not divided by it"),
    Bug("celu_is_elu", "jax.nn.celu,", "jax.nn.elu,", equivalent="with alpha 1 CELU and ELU are one function"),
)
