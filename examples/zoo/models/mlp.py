"""A perceptron with another activation behind every layer; the port is in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

ACTIVATIONS = (
    F.gelu,
    torch.tanh,
    F.silu,
    torch.sigmoid,
    F.relu,
    F.hardsigmoid,
    F.elu,
    F.softsign,
    F.softplus,
    F.hardtanh,
    F.leaky_relu,
    lambda x: F.gelu(x, approximate="tanh"),
    F.logsigmoid,
    F.tanhshrink,
    F.relu6,
    F.mish,
    F.selu,
    F.hardswish,
    F.celu,
    lambda x: F.softmax(x, 1),
    lambda x: F.elu(x, alpha=0.5),
    lambda x: F.log_softmax(x, -1),
    lambda x: F.softplus(x, beta=2),
)


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in ACTIVATIONS])
        for layer in self.layers:
            nn.init.normal_(layer.get_parameter("weight"), std=0.7)  # so that activations saturate

    def forward(self, x: Tensor) -> Tensor:
        for layer, activation in zip(self.layers, ACTIVATIONS, strict=True):
            x = activation(layer(x))
        return x


# --- the port --------------------------------------------------------------------------------------------------


PORTED = (
    lambda x: jax.nn.gelu(x, approximate=False),
    jnp.tanh,
    jax.nn.silu,
    jax.nn.sigmoid,
    jax.nn.relu,
    jax.nn.hard_sigmoid,
    jax.nn.elu,
    jax.nn.soft_sign,
    jax.nn.softplus,
    lambda x: jnp.where(jnp.abs(x) < 1, x, jnp.sign(x)),  # jax.nn.hard_tanh has another gradient at exactly 1
    lambda x: jnp.where(x > 0, x, 0.01 * x),  # jax.nn.leaky_relu has another gradient at exactly 0
    lambda x: jax.nn.gelu(x, approximate=True),
    jax.nn.log_sigmoid,
    lambda x: x - jnp.tanh(x),
    jax.nn.relu6,
    jax.nn.mish,
    jax.nn.selu,
    jax.nn.hard_swish,
    jax.nn.celu,
    lambda x: jax.nn.softmax(x, axis=1),
    lambda x: jax.nn.elu(x, alpha=0.5),
    lambda x: jax.nn.log_softmax(x, axis=-1),
    lambda x: jax.nn.softplus(2 * x) / 2,
)


class PortedNet(nnx.Module):
    def __init__(self, width: int = 8, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in PORTED])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer, activation in zip(self.layers, PORTED, strict=True):
            x = activation(layer(x))
        return x


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(16, 8)),))
