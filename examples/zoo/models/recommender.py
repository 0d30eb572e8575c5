"""Sums of embeddings beside dense features, and the products between them; the port is in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Arrays, Port

WIDTH, SIZES = 4, (7, 9, 5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(size, WIDTH) for size in SIZES])
        self.bottom1, self.bottom2 = nn.Linear(5, 6), nn.Linear(6, WIDTH)
        self.top1, self.top2 = nn.Linear(WIDTH + 6, 6), nn.Linear(6, 1)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = F.relu(self.bottom2(F.relu(self.bottom1(torch.log1p(dense)))))
        bags = [table(sparse[:, i]).mean(1) for i, table in enumerate(self.tables)]
        fields = torch.stack([x, *bags], 1)
        products = fields @ fields.transpose(1, 2)
        rows, columns = torch.tril_indices(4, 4, -1)
        x = torch.cat([x, products[:, rows, columns]], 1)
        return torch.sigmoid(self.top2(F.relu(self.top1(x))))


# --- the port --------------------------------------------------------------------------------------------------


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.tables = nnx.List([nnx.Embed(size, WIDTH, rngs=rngs) for size in SIZES])
        self.bottom1, self.bottom2 = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, WIDTH, rngs=rngs)
        self.top1, self.top2 = nnx.Linear(WIDTH + 6, 6, rngs=rngs), nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, dense: jax.Array, sparse: jax.Array) -> jax.Array:
        x = nnx.relu(self.bottom2(nnx.relu(self.bottom1(jnp.log1p(dense)))))
        bags = [table(sparse[:, i]).mean(1) for i, table in enumerate(self.tables)]
        fields = jnp.stack([x, *bags], 1)
        products = jnp.einsum("nid,njd->nij", fields, fields)
        rows, columns = jnp.tril_indices(4, -1)
        x = jnp.concatenate([x, products[:, rows, columns]], 1)
        return nnx.sigmoid(self.top2(nnx.relu(self.top1(x))))


def inputs(rng: np.random.Generator) -> Arrays:
    """Counts, and three bags of three words each."""
    return rng.exponential(size=(4, 5)), np.stack([rng.integers(0, size, (4, 3)) for size in SIZES], 1)


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), inputs)
