"""A gated perceptron, and its port as a plain function of a tree of parameters, as equinox or haiku users write."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.zoo.port import Port


class Net(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(4, width), nn.LayerNorm(width)
        self.gate, self.up, self.down = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = self.norm(x)
        return x + self.scale * self.down(F.gelu(self.gate(y)) * self.up(y))


# --- the port --------------------------------------------------------------------------------------------------


def linear(tree: Any, x: jax.Array) -> jax.Array:
    return x @ tree["w"] + tree["b"]


def ported(tree: Any, x: jax.Array) -> jax.Array:
    x = linear(tree["enter"], x)
    y = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    y = y * tree["norm"]["gamma"] + tree["norm"]["beta"]
    hidden = jax.nn.gelu(linear(tree["gate"], y), approximate=False) * linear(tree["up"], y)
    return x + tree["scale"] * linear(tree["down"], hidden)


def converted(state: dict[str, NDArray]) -> Any:
    """PyTorch's state dict as the function's tree."""
    tree: dict[str, Any] = {"scale": jnp.asarray(state["scale"])}
    for name in ("enter", "gate", "up", "down"):
        tree[name] = {"w": jnp.asarray(state[f"{name}.weight"].T), "b": jnp.asarray(state[f"{name}.bias"])}
    tree["norm"] = {"gamma": jnp.asarray(state["norm.weight"]), "beta": jnp.asarray(state["norm.bias"])}
    return tree


PORT = Port(Net, lambda: ported, lambda rng: (rng.normal(size=(5, 4)),), converted=converted)
