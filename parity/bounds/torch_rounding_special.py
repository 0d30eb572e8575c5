"""The error bounds of special functions, window functions, grids and distances, to first order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import Formula, Operation
from parity.bounds.torch_rounding_functions import argument, elementary, register_formula, times
from parity.bounds.torch_rounding_rules import RULES, largest, rule

register_formula("logit_backward", lambda g, x: g / (x * (1 - x)), 0, 1)


@rule("addr")
def _added_product(op: Operation) -> tuple[Any, int]:
    alpha, beta = (float(op.kwargs.get(name, 1)) for name in ("alpha", "beta"))

    def written(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
        product = a.unsqueeze(1) * b.unsqueeze(0)
        return (c if beta == 1 else beta * c) + (product if alpha == 1 else alpha * product)

    return op.cost(written, 0, 1, 2)


@rule("linalg_cross")
def _crossed(op: Operation) -> tuple[Any, int]:
    dim = int(argument(op, 2, "dim", op.kwargs.get("dim", -1)))

    def written(a: Tensor, b: Tensor) -> Tensor:
        return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)

    return op.cost(written, 0, 1)


@rule("logaddexp2")
def _log_of_sum(op: Operation) -> tuple[Any, int]:
    a, b = op.value(0), op.value(1)
    own = op.unit * ((ELEMENTARY + 3) * (a.abs() + b.abs()).clamp_max(1e300) + 4 * ELEMENTARY)
    carried = largest(op)
    return own if carried is None else own + carried, 2 * ELEMENTARY


@rule("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
def _window(op: Operation) -> tuple[Any, int]:
    """Sums of cosines of at most 1: rounded relative to 1, their arguments relative to two turns."""
    size = torch.ones(op.output.shape, dtype=torch.float64)
    return (ELEMENTARY + 4 * 2 * math.pi) * op.unit * size, ELEMENTARY + 4


@rule("logspace")
def _powers(op: Operation) -> tuple[Any, int]:
    """A base to evenly spaced powers."""
    ends = max(abs(float(op.args[0])), abs(float(op.args[1])))
    base = float(argument(op, 3, "base", 10.0))
    return op.rounded * (ELEMENTARY + 4 * ends * abs(math.log(base))), ELEMENTARY + 4


@rule("affine_grid_generator")
def _grid(op: Operation) -> tuple[Any, int]:
    """Coordinates of at most 1, and 1, times theta (N, rows, columns)."""
    theta = op.value(0)
    error = op.error(0) + 6 * op.unit * theta.abs()
    total = error.sum(-1)  # (N, rows)
    return total.reshape(len(total), *[1] * (op.output.ndim - 2), -1).expand(op.output.shape), 6


RULES["i0"] = elementary(lambda x, y: torch.special.i1(x))
RULES["special_i0e"] = elementary(lambda x, y: torch.ones_like(y))
RULES["special_i1"] = elementary(lambda x, y: torch.special.i0(x))
RULES["special_i1e"] = elementary(lambda x, y: torch.ones_like(y))


@rule("polygamma")
def _polygamma(op: Operation) -> tuple[Any, int]:
    order, x = int(op.args[0]), op.value(1)
    return times(torch.polygamma(order + 1, x), op.error(1)) + 4 * ELEMENTARY * op.rounded, 4 * ELEMENTARY


def _distances(order: float) -> Formula:
    """Distances of rows, of any order."""

    def written(a: Tensor, b: Tensor) -> Tensor:
        apart = (a.unsqueeze(-2) - b.unsqueeze(-3)).abs()
        if order == 1:
            return apart.sum(-1)
        return apart.amax(-1) if math.isinf(order) else (apart**order).sum(-1) ** (1 / order)

    return written


_EUCLIDEAN = RULES["_cdist_forward"]


@rule("_cdist_forward")
def _apart(op: Operation) -> tuple[Any, int]:
    order = float(op.args[2])
    return _EUCLIDEAN(op) if order == 2 else op.cost(_distances(order), 0, 1)


@rule("_cdist_backward")
def _apart_backward(op: Operation) -> tuple[Any, int]:
    """To the rows of the first, sum over those of the second of g (a - b) / distance, or of g times a sign."""
    order = float(op.args[3])
    if order not in (1.0, 2.0):
        raise ValueError("only these orders are known")

    def written(g: Tensor, a: Tensor, b: Tensor, d: Tensor) -> Tensor:
        apart = a.unsqueeze(-2) - b.unsqueeze(-3)
        if order == 1:
            return (g.unsqueeze(-1) * torch.sign(apart)).sum(-2)
        weight = torch.where(d == 0, torch.zeros_like(d), g / d)
        return (weight.unsqueeze(-1) * apart).sum(-2)

    return op.cost(written, 0, 1, 2, 4)
