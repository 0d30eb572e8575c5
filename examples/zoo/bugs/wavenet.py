"""Causal padding, dilation, gates, skips."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "dilation_left_out",
        "self.dilation = dilation\n        self.conv = nnx.Conv(6, 12, (2,), kernel_dilation=dilation,",
        "self.dilation = 1\n        self.conv = nnx.Conv(6, 12, (2,),",
        "blocks/1/conv, input",
        "pad",
    ),
    Bug(
        "not_causal",
        "((0, 0), (self.dilation, 0), (0, 0))",
        "((0, 0), (0, self.dilation), (0, 0))",
        "blocks/0/conv, input",
        "pad|shift|order",
    ),
    Bug(
        "gate_exchanged",
        "filtered, gate = jnp.split(self",
        "gate, filtered = jnp.split(self",
        "blocks/0/residual, input",
        "parts_order",
    ),
    Bug("gate_of_relu", "jax.nn.sigmoid(gate)", "jax.nn.relu(gate)", "blocks/0/residual, input", "relu"),
    Bug("tanh_left_out", "jnp.tanh(filtered) * jax", "filtered * jax", "blocks/0/residual, input", "tanh"),
    Bug(
        "residual_left_out",
        "return x + self.residual(y), self.skip(y)\n\n\nclass PortedNet",
        "return self.residual(y), self.skip(y)\n\n\nclass PortedNet",
        "blocks/1/conv, input",
        "residual|add|left out",
    ),
    Bug(
        "skip_of_the_last_block_alone",
        "            total = total + skip\n        x = nnx",
        "            total = skip\n        x = nnx",
        "final, input",
        "add|sum|left out",
    ),
    Bug(
        "relu_left_out", "nnx.relu(self.final(nnx.relu(total)))", "nnx.relu(self.final(total))", "final, input", "relu"
    ),
    Bug("padding_counted", ", count_include_pad=False", "", "logits, input", "pool_area|padding_same"),
    Bug("floor_for_ceil", 'padding="SAME", count', "count", "logits, input", "ceil_mode"),
    Bug("pool_of_three", "nnx.avg_pool(x, (2,), (2,)", "nnx.avg_pool(x, (3,), (2,)", "logits, input", "pool_size"),
)
