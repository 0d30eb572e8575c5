"""A mixture of experts in which every expert computes and the best two count; the port is in nnx."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

from examples.zoo.port import Port

WIDTH, EXPERTS, BEST = 6, 4, 2


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.router = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList([Expert() for _ in range(EXPERTS)])
        self.shared, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x)
        probabilities = self.router(y).softmax(-1)
        best, chosen = probabilities.topk(BEST, -1)
        weights = torch.zeros_like(probabilities).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        outputs = torch.stack([expert(y) for expert in self.experts], -2)
        mixed = (weights[..., None] * outputs).sum(-2)
        mixed = mixed + torch.sigmoid(self.gate(y)) * self.shared(y)
        return x + mixed, EXPERTS * (probabilities.mean(0) * (weights > 0).double().mean(0)).sum()


# --- the port --------------------------------------------------------------------------------------------------


class PortedExpert(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.w1, self.w3 = nnx.Linear(WIDTH, 8, rngs=rngs), nnx.Linear(WIDTH, 8, rngs=rngs)
        self.w2 = nnx.Linear(8, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.w2(nnx.silu(self.w1(x)) * self.w3(x))


class PortedNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.router = nnx.Linear(WIDTH, EXPERTS, use_bias=False, rngs=rngs)
        self.experts = nnx.List([PortedExpert(rngs=rngs) for _ in range(EXPERTS)])
        self.shared, self.gate = nnx.Linear(WIDTH, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = self.norm(x)
        probabilities = jax.nn.softmax(self.router(y), -1)
        best, chosen = jax.lax.top_k(probabilities, BEST)
        best = best / best.sum(-1, keepdims=True)
        weights = jnp.sum(jax.nn.one_hot(chosen, EXPERTS, dtype=x.dtype) * best[..., None], -2)
        outputs = jnp.stack([expert(y) for expert in self.experts], -2)
        mixed = jnp.sum(weights[..., None] * outputs, -2)
        mixed = mixed + nnx.sigmoid(self.gate(y)) * self.shared(y)
        return x + mixed, EXPERTS * jnp.sum(probabilities.mean(0) * (weights > 0).astype(x.dtype).mean(0))


PORT = Port(Net, lambda: PortedNet(rngs=nnx.Rngs(0)), lambda rng: (rng.normal(size=(7, WIDTH)),))
