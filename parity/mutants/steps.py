"""Planted bugs in losses and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
import torch
import torch.nn.functional as F

from jax_alexnet import optim
from parity.alexnet.trainers import JaxTrainer, TorchTrainer

Change = Callable[[TorchTrainer, JaxTrainer], None]


def step_mutants() -> Iterator[tuple[str, int, str, str, str, tuple[str, ...], tuple[str, ...], Change]]:
    """Optimizers and losses: id, number, title, side, recipe, rows where it may be seen first, causes, the change."""
    seen = ("parameters", "velocity", "momentum_buffer", "exp_avg")

    def jax_with(optimizer: Callable[[JaxTrainer], Any]) -> Change:
        def change(torch_side: TorchTrainer, jax_side: JaxTrainer) -> None:
            jax_side.optimizer = optimizer(jax_side)

        return change

    def torch_with(optimizer: Callable[[TorchTrainer], Any]) -> Change:
        def change(torch_side: TorchTrainer, jax_side: JaxTrainer) -> None:
            torch_side.optimizer = optimizer(torch_side)

        return change

    inside = jax_with(lambda trainer: _chain(trainer, optax.trace(0.9), decay=5e-4))
    yield (
        "23-rate-place-jax",
        23,
        "learning rate outside the velocity",
        "jax",
        "paper",
        seen,
        ("optimizer_rate_place",),
        inside,
    )
    outside = torch_with(lambda t: torch.optim.SGD(t.network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4))
    yield (
        "23-rate-place-torch",
        23,
        "learning rate outside the velocity",
        "torch",
        "paper",
        seen,
        ("optimizer_rate_place",),
        outside,
    )
    title, cause = "decoupled for coupled weight decay", ("optimizer_decoupled_decay",)
    yield "24-decoupled-jax", 24, title, "jax", "torchvision", seen, cause, jax_with(_decoupled)
    yield "24-decoupled-torch", 24, title, "torch", "torchvision", seen, cause, torch_with(_torch_decoupled)
    title, cause = "biases not decayed", ("optimizer_bias_decay",)
    no_bias = jax_with(lambda trainer: _chain(trainer, optax.trace(0.9), decay=1e-4, biases=False))
    yield "25-bias-decay-jax", 25, title, "jax", "torchvision", seen, cause, no_bias
    yield "25-bias-decay-torch", 25, title, "torch", "torchvision", seen, cause, torch_with(_torch_without_bias_decay)
    nesterov = jax_with(lambda trainer: _chain(trainer, optax.trace(0.9, nesterov=True), decay=1e-4))
    yield "26-nesterov-jax", 26, "Nesterov", "jax", "torchvision", seen, ("optimizer_nesterov",), nesterov
    sgd = torch.optim.SGD
    ahead = torch_with(lambda t: sgd(t.network.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True))
    yield "26-nesterov-torch", 26, "Nesterov", "torch", "torchvision", seen, ("optimizer_nesterov",), ahead
    damped = torch_with(lambda t: sgd(t.network.parameters(), 0.01, 0.9, dampening=0.9, weight_decay=1e-4))
    yield "26-dampening-torch", 26, "dampening", "torch", "torchvision", seen, ("optimizer_dampening",), damped

    def jax_sum(torch_side: TorchTrainer, jax_side: JaxTrainer) -> None:
        mean = jax_side.loss
        jax_side.loss = lambda logits, labels: mean(logits, labels) * len(labels)

    def torch_sum(torch_side: TorchTrainer, jax_side: JaxTrainer) -> None:
        torch_side.loss = lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")

    yield "27-loss-sum-jax", 27, "loss summed", "jax", "torchvision", ("loss",), ("loss_summed",), jax_sum
    yield "27-loss-sum-torch", 27, "loss summed", "torch", "torchvision", ("loss",), ("loss_summed",), torch_sum


def _chain(trainer: JaxTrainer, middle: Any, decay: float, biases: bool = True) -> Any:
    def decays(path: Any, _: Any) -> float:
        return decay if biases or path[-1].key != "bias" else 0.0

    tree = jax.tree_util.tree_map_with_path(decays, trainer.params)
    ones = jax.tree.map(lambda _: 1.0, trainer.params)
    return optax.with_extra_args_support(optax.chain(optim.add_decay(tree), middle, optim.descend(ones)))


def _decoupled(trainer: JaxTrainer) -> Any:
    tree = jax.tree.map(lambda _: 1e-4, trainer.params)
    ones = jax.tree.map(lambda _: 1.0, trainer.params)
    chain = optax.chain(optax.trace(0.9), optim.add_decay(tree), optim.descend(ones))
    return optax.with_extra_args_support(chain)


class _DecoupledSGD(torch.optim.SGD):
    """SGD that shrinks the weights by themselves."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Shrink, then step."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.mul_(1 - group["lr"] * 1e-4)
        return super().step(closure)


def _torch_decoupled(trainer: TorchTrainer) -> Any:
    return _DecoupledSGD(trainer.network.parameters(), 0.01, momentum=0.9)


def _torch_without_bias_decay(trainer: TorchTrainer) -> Any:
    named = list(trainer.network.named_parameters())
    groups = [
        {"params": [p for n, p in named if n.endswith("bias")], "weight_decay": 0.0},
        {"params": [p for n, p in named if not n.endswith("bias")], "weight_decay": 1e-4},
    ]
    return torch.optim.SGD(groups, 0.01, momentum=0.9)
