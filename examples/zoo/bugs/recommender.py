"""Bags, pairs of fields, logarithms."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("sum_for_mean", "table(sparse[:, i]).mean(1)", "table(sparse[:, i]).sum(1)", "top1, input", "mean|scaled|sum"),
    Bug("maximum_for_mean", "table(sparse[:, i]).mean(1)", "table(sparse[:, i]).max(1)", "top1, input", "max"),
    Bug("log_without_one", "jnp.log1p(dense)", "jnp.log(dense)", "bottom1, input", "log"),
    Bug("log_of_ten", "jnp.log1p(dense)", "jnp.log10(1 + dense)", "bottom1, input", "scaled|log"),
    Bug("upper_pairs", "jnp.tril_indices(4, -1)", "jnp.triu_indices(4, 1)", "top1, input", "order|permut|pair|tri"),
    Bug(
        "diagonal_for_corner",
        "jnp.tril_indices(4, -1)",
        "(jnp.array([0, 1, 2, 3, 2, 3]), jnp.array([0, 1, 2, 3, 0, 0]))",
        "top1, input",
        "",
    ),
    Bug(
        "dense_field_last", "jnp.stack([x, *bags], 1)", "jnp.stack([*bags, x], 1)", "top1, input", "order|stack|permut"
    ),
    Bug(
        "products_in_front",
        "[x, products[:, rows, columns]]",
        "[products[:, rows, columns], x]",
        "top1, input",
        "order|permut|concat",
    ),
    Bug("relu_left_out", "nnx.relu(self.bottom2(nnx", "(self.bottom2(nnx", "top1, input", "relu"),
    Bug(
        "sigmoid_left_out",
        "nnx.sigmoid(self.top2(nnx.relu(self.top1(x))))",
        "self.top2(nnx.relu(self.top1(x)))",
        "output, input",
        "sigmoid",
    ),
    Bug(
        "words_off_by_one",
        "table(sparse[:, i]).mean(1)",
        "table((sparse[:, i] + 1) % SIZES[i]).mean(1)",
        "tables/0, input",
        "shift|offset|off by|add|one more",
    ),
    Bug(
        "fields_exchanged",
        "table(sparse[:, i])",
        "table(sparse[:, (0, 2, 1)[i]] % SIZES[i])",
        "tables/1, input",
        "number 2 of axis 1 of the model's input 1 is taken, in PyTorch number 1",
    ),
)
