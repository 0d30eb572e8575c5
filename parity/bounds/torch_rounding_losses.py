"""The error bounds of loss functions, forward and backward, to first order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parity.bounds.torch_operation import Operation, Rule
from parity.bounds.torch_rounding_functions import argument
from parity.bounds.torch_rounding_rules import RULES, rule

_NONE, _MEAN, _SUM = 0, 1, 2  # ATen's reductions

Elementwise = Callable[[Operation, Tensor, Tensor], Tensor]


def _reduced(values: Tensor, reduction: int) -> Tensor:
    return values if reduction == _NONE else values.mean() if reduction == _MEAN else values.sum()


def _loss(loss: Elementwise, reduction_at: int = 2) -> Rule:
    """Rule of a loss that is computed element by element of input and target, then reduced."""

    def of(op: Operation) -> tuple[Any, int]:
        reduction = argument(op, reduction_at, "reduction", _MEAN)
        return op.cost(lambda x, t: _reduced(loss(op, x, t), reduction), 0, 1)

    return of


def _gradient(slope: Elementwise, reduction_at: int = 3) -> Rule:
    """Rule of its backward: the gradient, shared out, times the slope at each element."""

    def of(op: Operation) -> tuple[Any, int]:
        reduction = argument(op, reduction_at, "reduction", _MEAN)

        def written(g: Tensor, x: Tensor, t: Tensor) -> Tensor:
            found = g * slope(op, x, t)
            return found / float(x.numel()) if reduction == _MEAN else found

        return op.cost(written, 0, 1, 2)

    return of


def _smooth(op: Operation, x: Tensor, t: Tensor) -> Tensor:
    far, beta = (x - t).abs(), float(argument(op, 3, "beta", 1.0))
    return torch.where(far < beta, 0.5 * far * far / beta, far - 0.5 * beta)


def _smooth_slope(op: Operation, x: Tensor, t: Tensor) -> Tensor:
    apart, beta = x - t, float(op.args[4])
    return torch.where(apart.abs() < beta, apart / beta, torch.sign(apart))


def _huber(op: Operation, x: Tensor, t: Tensor) -> Tensor:
    far, delta = (x - t).abs(), float(argument(op, 3, "delta", 1.0))
    return torch.where(far < delta, 0.5 * far * far, delta * (far - 0.5 * delta))


def _huber_slope(op: Operation, x: Tensor, t: Tensor) -> Tensor:
    apart, delta = x - t, float(op.args[4])
    return torch.where(apart.abs() < delta, apart, delta * torch.sign(apart))


RULES["mse_loss"] = _loss(lambda op, x, t: (x - t) ** 2)
RULES["mse_loss_backward"] = _gradient(lambda op, x, t: 2 * (x - t))
RULES["smooth_l1_loss"], RULES["smooth_l1_loss_backward"] = _loss(_smooth), _gradient(_smooth_slope)
RULES["huber_loss"], RULES["huber_loss_backward"] = _loss(_huber), _gradient(_huber_slope)


def _cross_entropy(x: Tensor, t: Tensor) -> Tensor:
    """Logarithms end at -100, as PyTorch's do."""
    least = 3e-44  # exp(-100)
    return -(t * torch.log(x.clamp_min(least)) + (1 - t) * torch.log((1 - x).clamp_min(least)))


def _weighted(op: Operation, place: int) -> Callable[[Tensor], Tensor]:
    weight = op.value(place)
    return (lambda values: values) if weight is None else (lambda values: values * weight)


@rule("binary_cross_entropy")
def _binary(op: Operation) -> tuple[Any, int]:
    reduction, weigh = argument(op, 3, "reduction", _MEAN), _weighted(op, 2)
    return op.cost(lambda x, t: _reduced(weigh(_cross_entropy(x, t)), reduction), 0, 1)


@rule("binary_cross_entropy_backward")
def _binary_backward(op: Operation) -> tuple[Any, int]:
    reduction, weigh = argument(op, 4, "reduction", _MEAN), _weighted(op, 3)

    def written(g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        found = weigh(g * (x - t) / ((1 - x) * x).clamp_min(1e-12))
        return found / float(x.numel()) if reduction == _MEAN else found

    return op.cost(written, 0, 1, 2)


@rule("binary_cross_entropy_with_logits")
def _binary_logits(op: Operation) -> tuple[Any, int]:
    reduction, weigh, positive = argument(op, 4, "reduction", _MEAN), _weighted(op, 2), op.value(3)

    def written(x: Tensor, t: Tensor) -> Tensor:
        tail = torch.log1p(torch.exp(-x.abs())) + torch.relu(-x)
        factor = 1.0 if positive is None else (positive - 1) * t + 1
        return _reduced(weigh((1 - t) * x + factor * tail), reduction)

    return op.cost(written, 0, 1)


@rule("nll_loss_forward", "nll_loss2d_forward")
def _likelihood(op: Operation) -> tuple[Any, int]:
    """- sum(w x) / sum(w) of the labels' values; linear in them."""
    terms = op.args[1].numel() if op.args[3] != _NONE else 1
    rest = _doubled(op)
    own = (2 * terms + 1) * op.unit * op.func(op.value(0).abs(), *rest, **op.kwargs)[0].abs()
    carried = op.func(op.errors[0], *rest, **op.kwargs)[0].abs() if 0 in op.errors else 0.0
    return [carried + own, None], 2 * terms + 1


@rule("nll_loss_backward", "nll_loss2d_backward")
def _likelihood_backward(op: Operation) -> tuple[Any, int]:
    terms = op.args[2].numel() if op.args[4] == _MEAN else 1
    carried = op.func(op.errors[0], *_doubled(op), **op.kwargs).abs() if 0 in op.errors else 0.0
    return carried + (terms + 2) * op.rounded, terms + 2


def _doubled(op: Operation) -> tuple[Any, ...]:
    return tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
