"""Tokens and channels, which are as many."""

from examples.zoo.planting import Bug

BUGS = (
    Bug(
        "tokens_not_turned",
        "self.tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)",
        "self.tokens(self.norm1(x))",
        "blocks/0/tokens/fc1, input",
        "transpos|exchanged|axes",
    ),
    Bug(
        "tokens_not_turned_back",
        "swapaxes(1, 2)).swapaxes(1, 2)",
        "swapaxes(1, 2))",
        "blocks/0/norm2, input",
        "transpos|exchanged|axes",
    ),
    Bug(
        "reshaped_for_turned",
        "self.norm1(x).swapaxes(1, 2)",
        "self.norm1(x).reshape(len(x), WIDTH, TOKENS)",
        "blocks/0/tokens/fc1, input",
        "transpos|reshape",
    ),
    Bug(
        "norm_behind_the_mean",
        "self.norm(x).mean(1))\n\n\nPORT",
        "self.norm(x.mean(1)))\n\n\nPORT",
        "norm, input",
        "order|mean",
    ),
    Bug(
        "mean_over_channels",
        "self.norm(x).mean(1))\n\n\nPORT",
        "self.norm(x).mean(2))\n\n\nPORT",
        "head, input",
        "axis|axes|mean",
    ),
    Bug("gelu_by_tanh", ", approximate=False", "", "blocks/0/tokens/fc2, input", "gelu_tanh"),
    Bug(
        "relu_for_gelu",
        "jax.nn.gelu(self.fc1(x), approximate=False)",
        "jax.nn.relu(self.fc1(x))",
        "blocks/0/tokens/fc2, input",
        "activation_relu",
    ),
    Bug(
        "residual_of_the_norm",
        "return x + self.channels(self.norm2(x))\n\n\nclass PortedNet",
        "x = self.norm2(x)\n        return x + self.channels(x)\n\n\nclass PortedNet",
        "blocks/1/norm1, input",
        "residual|add",
    ),
    Bug(
        "branches_side_by_side",
        "        x = x + self.tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)\n        return x + ",
        "        y = x + self.tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)\n        return y + ",
        "blocks/0/norm2, input",
        "order|residual|add|left out",
    ),
    Bug(
        "patches_by_columns",
        "x.reshape(len(x), TOKENS, WIDTH)",
        "x.swapaxes(1, 2).reshape(len(x), TOKENS, WIDTH)",
        "blocks/0/norm1, input",
        "row|column|transpos|order",
    ),
)
