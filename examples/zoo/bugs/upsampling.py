"""Ways to enlarge, what stands beyond edges, the order within a patch."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "patches_by_columns",
        "transpose(0, 1, 3, 2, 4, 5)",
        "transpose(0, 1, 3, 4, 2, 5)",
        "merge, input",
        "order|permut|transpos",
    ),
    Bug(
        "patches_channels_first",
        "transpose(0, 1, 3, 2, 4, 5)",
        "transpose(0, 1, 3, 5, 2, 4)",
        "merge, input",
        "order|permut|transpos",
    ),
    Bug("linear_for_nearest", '(n, h, w, 6), "nearest"', '(n, h, w, 6), "linear"', "conv1, input", "bilinear|nearest"),
    Bug(
        "nearest_for_linear",
        '(n, 2 * h, 2 * w, 6), "linear"',
        '(n, 2 * h, 2 * w, 6), "nearest"',
        "conv2, input",
        "bilinear|nearest",
    ),
    Bug("cubic_for_linear", '(n, 2 * h, 2 * w, 6), "linear"', '(n, 2 * h, 2 * w, 6), "cubic"', "conv2, input", "cubic"),
    Bug(
        "corners_aligned",
        'jax.image.resize(x, (n, 2 * h, 2 * w, 6), "linear")',
        'jax.image.scale_and_translate(x, (n, 2 * h, 2 * w, 6), (1, 2), jnp.array([(2 * h - 1) / (h - 1), (2 * w - 1) / (w - 1)]), jnp.array([0.5 - 0.5 * (2 * h - 1) / (h - 1), 0.5 - 0.5 * (2 * w - 1) / (w - 1)]), "linear")',
        "conv2, input",
        "corner",
    ),
    Bug("zeros_for_reflection", 'mode="reflect")', 'mode="constant")', "conv3, input", "pad|zero|edge"),
    Bug("symmetric_for_reflection", 'mode="reflect")', 'mode="symmetric")', "conv3, input", "pad|symmetric|edge"),
    Bug("zeros_for_edge", 'mode="edge")', 'mode="constant")', "conv4, input", "pad|zero|edge"),
    Bug(
        "convolution_pads_for_reflection",
        'x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")\n        x = linen.silu(linen.Conv(6, (3, 3), padding="VALID"',
        "x = linen.silu(linen.Conv(6, (3, 3), padding=1",
        "conv3, input",
        "pad|shape",
    ),
    Bug(
        "not_clipped",
        'jnp.clip(linen.Conv(3, (3, 3), padding="VALID", name="conv4")(x), -0.3, 0.3)',
        'linen.Conv(3, (3, 3), padding="VALID", name="conv4")(x)',
        "output, input",
        "clamp|clip|hard|left out",
    ),
    Bug("clipped_to_one", "(x), -0.3, 0.3)", "(x), 0, 0.3)", "output, input", "clamp|clip|relu|0"),
    Bug(
        "relu_for_silu",
        'linen.silu(linen.Conv(6, (3, 3), padding=1, name="conv1")(x))',
        'linen.relu(linen.Conv(6, (3, 3), padding=1, name="conv1")(x))',
        "conv2, input",
        "relu",
    ),
)
