"""A GRU whose last state is read with the sequence's mean, and its weights converted by hand; the port is in Linen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.zoo.port import Port

INPUTS, SIZE = 4, 5


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(INPUTS, SIZE, batch_first=True)
        self.head = torch.nn.Linear(2 * SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, last = self.gru(x)
        return self.head(torch.cat([y.mean(1), last[0]], -1))


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        last, y = nn.RNN(nn.GRUCell(SIZE, name="cell"), return_carry=True, name="gru")(x)
        return nn.Dense(3, name="head")(jnp.concatenate([y.mean(1), last], -1))


def converted(state: dict[str, NDArray]) -> dict[str, Any]:
    names = ("r", "z", "n")
    inputs, states = (np.split(state[f"gru.weight_{side}_l0"], 3) for side in ("ih", "hh"))
    of_input, of_state = (np.split(state[f"gru.bias_{side}_l0"], 3) for side in ("ih", "hh"))
    cell = {f"i{name}": {"kernel": kernel.T} for name, kernel in zip(names, inputs, strict=True)}
    cell |= {f"h{name}": {"kernel": kernel.T} for name, kernel in zip(names, states, strict=True)}
    for i, name in enumerate(names):
        cell[f"i{name}"]["bias"] = of_input[i] + of_state[i] if name != "n" else of_input[i]
    cell["hn"]["bias"] = of_state[2]
    head = {"kernel": state["head.weight"].T, "bias": state["head.bias"]}
    return {"params": jax.tree.map(jnp.asarray, {"cell": cell, "head": head})}


PORT = Port(Net, PortedNet, lambda rng: (rng.normal(size=(2, 3, INPUTS)),), converted=converted)
