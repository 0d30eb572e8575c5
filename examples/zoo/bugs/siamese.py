"""Which picture goes where, distances, similarities."""

from examples.zoo.planting import Bug

BUGS = (
    Bug("absolute_at_zero", "(a - b) * jnp.sign(a - b)", "jnp.abs(a - b)", "tower/fc, cotangent at ties", ""),
    Bug(
        "left_picture_twice",
        "self.tower(left), self.tower(right)\n        classes",
        "self.tower(left), self.tower(left)\n        classes",
        "tower/conv, input",
        "other input|order|input",
    ),
    Bug(
        "pictures_exchanged",
        "self.tower(left), self.tower(right)\n        classes",
        "self.tower(right), self.tower(left)\n        classes",
        "tower/conv, input",
        "other input|order|input|exchanged",
    ),
    Bug("not_absolute", "self.head((a - b) * jnp.sign(a - b))", "self.head(a - b)", "head, input", "abs"),
    Bug("squared_for_absolute", "(a - b) * jnp.sign(a - b)", "(a - b) ** 2", "head, input", "square|pow"),
    Bug(
        "sum_for_difference",
        "(a - b) * jnp.sign(a - b)",
        "(a + b) * jnp.sign(a + b)",
        "head, input",
        "add|sub|sum|difference",
    ),
    Bug(
        "distance_squared",
        "jnp.linalg.norm(a - b + 1e-6, axis=-1)",
        "jnp.sum((a - b + 1e-6) ** 2, -1)",
        "output, input",
        "square|root",
    ),
    Bug("distance_without_its_epsilon", "a - b + 1e-6", "a - b", "output, input", "1e-06|epsilon|left out"),
    Bug(
        "epsilon_of_the_lengths",
        "jnp.maximum(lengths, 1e-8)",
        "(lengths + 1e-8)",
        "output, input",
        "epsilon|1e-08|scaled",
    ),
    Bug("not_normalised", " / jnp.maximum(lengths, 1e-8)", "", "output, input", "left out|norm|div"),
    Bug(
        "bilinear_of_the_other",
        "a * self.bilinear(b)",
        "b * self.bilinear(a)",
        "bilinear, input",
        "is used, in PyTorch",
    ),
    Bug(
        "outputs_exchanged",
        "return classes, distance, similarity, jnp",
        "return classes, similarity, distance, jnp",
        "output, input",
        "order|exchanged|output",
    ),
    Bug(
        "pool_of_three",
        "(2, 2), (2, 2))\n        return jnp.tanh(self.fc",
        '(3, 3), (2, 2), "SAME")\n        return jnp.tanh(self.fc',
        "tower/fc, input",
        "pool_size|window|pool",
    ),
    Bug(
        "flattened_by_columns",
        "x.reshape(len(x), -1)",
        "x.swapaxes(1, 2).reshape(len(x), -1)",
        "tower/fc, input",
        "order|transpos|flatten",
    ),
    Bug(
        "tanh_left_out",
        "jnp.tanh(self.fc(x.reshape(len(x), -1)))",
        "self.fc(x.reshape(len(x), -1))",
        "head, input",
        "tanh",
    ),
)
