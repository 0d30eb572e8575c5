"""Rolled maps, windows, relative biases, merged patches."""

from examples.zoo.planting import Bug

OUT = "blocks/0/attn/proj, input".replace("blocks/0", "blocks_0")
BUGS = (
    Bug(
        "bias_left_out",
        "        scores = scores + table[differences()].transpose(2, 0, 1)\n",
        "",
        OUT,
        "bias|table|left out|add",
    ),
    Bug(
        "bias_turned_round",
        "table[differences()].transpose(2, 0, 1)",
        "table[differences()].transpose(2, 1, 0)",
        OUT,
        "bias|table|transpos|exchanged",
    ),
    Bug(
        "rolled_the_other_way",
        "jnp.roll(y, (-self.shift, -self.shift), (1, 2))",
        "jnp.roll(y, (self.shift, self.shift), (1, 2))",
        "blocks_1/attn/qkv, input",
        "roll|shift",
    ),
    Bug(
        "not_rolled_back",
        "            y = jnp.roll(y, (self.shift, self.shift), (1, 2))\n        x = x + y\n        hidden",
        "            pass\n        x = x + y\n        hidden",
        "blocks_1/norm2, input",
        "roll|shift|left out",
    ),
    Bug("mask_left_out", "jnp.asarray(regions(h, w, self.shift))", "None", "blocks_1/attn/proj, input", "mask"),
    Bug(
        "windows_not_put_back",
        "WINDOW, WINDOW, WIDTH).swapaxes(2, 3).reshape(n, h, w, WIDTH)\n        if self.shift:\n            y = jnp",
        "WINDOW, WINDOW, WIDTH).reshape(n, h, w, WIDTH)\n        if self.shift:\n            y = jnp",
        "blocks_0/norm2, input",
        "axes_not_moved",
    ),
    Bug(
        "corners_by_rows",
        "x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]\n        x = linen",
        "x[:, 0::2, 1::2], x[:, 1::2, 0::2], x[:, 1::2, 1::2]]\n        x = linen",
        "merging/norm, input",
        "order|permut|concat",
    ),
    Bug(
        "epsilon", 'LayerNorm(epsilon=1e-5, name="norm")', 'LayerNorm(name="norm")', "merging/norm, forward", "epsilon"
    ),
    Bug(
        "residual_left_out",
        "        x = x + y\n        hidden",
        "        x = y\n        hidden",
        "blocks_0/norm2, input",
        "residual|add|left out",
    ),
    Bug(
        "scale_left_out",
        " / math.sqrt(WIDTH // HEADS)\n        scores = scores + table[",
        "\n        scores = scores + table[",
        OUT,
        "scale",
    ),
)
