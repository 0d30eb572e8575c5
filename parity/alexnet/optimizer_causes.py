"""Naming what is wrong with an optimizer: the update rule in NumPy, with one mistake each.

Every rule of the recipes is one function of settings here; the recorded weights, gradients and learning rates of a
few steps are replayed through it, once as one side computed them and once for each mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import judge_worst, within
from parity.causes.layer.parameters import Cause, explains

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        kind: `inside` (the learning rate inside the velocity), `outside` (PyTorch's momentum) or `adam`.
        momentum: share of the velocity that is kept.
        decay: weight decay by parameter name.
        factor: learning rate over the weights', by parameter name.
        decoupled: decay acts on the weights, not through the gradient.
        nesterov: look ahead by one step.
        dampening: the gradient joins the velocity scaled by 1 - momentum.
        gradient_scale: the gradient is multiplied by this first.
        late: the learning rate of the step before is used.
    """

    kind: str
    momentum: float
    decay: dict[str, float]
    factor: dict[str, float]
    decoupled: bool = False
    nesterov: bool = False
    dampening: bool = False
    gradient_scale: float = 1.0
    late: bool = False


@dataclass(frozen=True)
class Step:
    """One recorded optimizer step: weights before it, the gradient, the learning rate, and what each side made."""

    before: Arrays
    gradient: Arrays
    rate: float
    torch_after: Arrays
    jax_after: Arrays


def explain(rule: Rule, steps: list[Step], batch: int, limit: float) -> list[Cause]:
    """Causes of a difference between two optimizers that were fed the same.

    Args:
        rule: what both should compute.
        steps: recorded, the first from fresh memories.
        batch: examples in a batch, for gradients that were summed.
        limit: largest relative difference that counts as none.
    """
    apart = max(_far(step.torch_after, step.jax_after) for step in steps)
    fits = {side: within(_replayed(rule, steps, side), limit) for side in ("torch", "jax")}
    for side in ("jax", "torch"):
        if fits[side] and not (fits["torch"] and fits["jax"]):
            continue
        for key, text, wrong in _mistakes(rule, batch):
            after = _replayed(wrong, steps, side)
            if explains(apart, after, limit):
                return [Cause(key, side, text, apart, after)]
    return []


def _mistakes(rule: Rule, batch: int) -> Iterator[tuple[str, str, Rule]]:
    if rule.kind in ("inside", "outside"):
        other = "outside" if rule.kind == "inside" else "inside"
        text = f"the learning rate is {other} the velocity, not {rule.kind}"
        yield "optimizer_rate_place", text, replace(rule, kind=other)
        yield "optimizer_nesterov", "Nesterov's momentum", replace(rule, nesterov=True)
        yield "optimizer_dampening", "the gradient is dampened by 1 - momentum", replace(rule, dampening=True)
        for momentum in (0.0, 0.5, 0.99, 1 - rule.momentum):
            yield (
                "optimizer_momentum",
                f"momentum is {momentum:g}, not {rule.momentum:g}",
                replace(rule, momentum=momentum),
            )
    yield "optimizer_decoupled_decay", "weight decay is decoupled from the gradient", replace(rule, decoupled=True)
    without = {n: 0.0 if n.endswith("bias") else d for n, d in rule.decay.items()}
    yield "optimizer_bias_decay", "biases are not decayed", replace(rule, decay=without)
    weights = {n.rsplit(".", 1)[0]: d for n, d in rule.decay.items() if n.endswith("weight")}
    everywhere = {n: weights.get(n.rsplit(".", 1)[0], d) for n, d in rule.decay.items()}
    yield "optimizer_bias_decay", "biases are decayed too", replace(rule, decay=everywhere)
    yield "optimizer_no_decay", "nothing is decayed", replace(rule, decay=dict.fromkeys(rule.decay, 0.0))
    yield (
        "optimizer_bias_rate",
        "biases learn at the weights' rate",
        replace(rule, factor=dict.fromkeys(rule.factor, 1.0)),
    )
    yield "loss_summed", "the gradient is that of the summed loss", replace(rule, gradient_scale=float(batch))
    yield (
        "loss_averaged_twice",
        "the gradient is divided by the batch once more",
        replace(rule, gradient_scale=1 / batch),
    )
    yield "rate_late", "the learning rate of the step before is used", replace(rule, late=True)
    for scale in (2.0, 0.5):
        doubled = {n: d * scale for n, d in rule.decay.items()}
        yield "optimizer_decay", f"weight decay is {scale:g} times too large", replace(rule, decay=doubled)


def _replayed(rule: Rule, steps: list[Step], side: str) -> float:
    """Largest relative difference between what a side made of each step and what the rule makes of it."""
    memory: dict[str, list[NDArray]] = {}
    worst, previous = 0.0, steps[0].rate
    for number, step in enumerate(steps, start=1):
        rate = previous if rule.late else step.rate
        previous = step.rate
        predicted = {n: _updated(rule, n, step, rate, memory, number) for n in step.before}
        worst = max(worst, _far(predicted, step.jax_after if side == "jax" else step.torch_after))
    return worst


def _updated(rule: Rule, name: str, step: Step, rate: float, memory: dict[str, list[NDArray]], number: int) -> NDArray:
    w, g = step.before[name], step.gradient[name] * rule.gradient_scale
    decay, rate = rule.decay[name], rate * rule.factor[name]
    if not rule.decoupled:
        g = g + decay * w
    shrunk = w * (1 - rate * decay) if rule.decoupled else w
    if rule.kind == "adam":
        m, s = memory.setdefault(name, [np.zeros_like(w), np.zeros_like(w)])
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * g * g
        memory[name] = [m, s]
        return shrunk - rate * (m / (1 - 0.9**number)) / (np.sqrt(s / (1 - 0.999**number)) + 1e-8)
    (v,) = memory.setdefault(name, [np.zeros_like(w)])
    share = 1 - rule.momentum if rule.dampening and number > 1 else 1.0  # PyTorch doesn't dampen the first
    if rule.kind == "inside":
        v = rule.momentum * v - rate * share * g
        memory[name] = [v]
        return shrunk + (rule.momentum * v - rate * share * g if rule.nesterov else v)
    v = rule.momentum * v + share * g
    memory[name] = [v]
    return shrunk - rate * (g + rule.momentum * v if rule.nesterov else v)


def _far(a: Arrays, b: Arrays) -> float:
    """Largest normwise difference of a tensor, relative to `b`."""
    return judge_worst(a, b, math.inf).error
