"""The error bounds of ATen operations, to first order: what comes in, carried through, plus what is rounded.

For y = f(a, b): error(y) = |df/da| error(a) + |df/db| error(b) + u |y| for each rounding of f itself. A sum of m
terms puts each through m - 1 roundings in the worst order, hence (m - 1) u sum |terms|. Elementary functions
(exp, log, tanh, powers) are allowed `bounds.ELEMENTARY` roundings.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.torch_operation import Operation, Rule, Terms

RULES: dict[str, Rule] = {}
SUMS = frozenset({"add", "sub", "rsub"})


def rule(*names: str) -> Any:
    """Decorator: this is the rule of these operations."""

    def add(found: Rule) -> Rule:
        for name in names:
            RULES[name] = found
        return found

    return add


@rule(
    "empty", "empty_like", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_ones",
    "new_empty", "new_empty_strided", "empty_strided", "scalar_tensor", "fill", "zero", "eye", "lift_fresh",
    "new_full", "bernoulli", "rand", "rand_like", "randn", "sign", "sgn", "floor", "ceil", "round", "one_hot",
    "_efficientzerotensor", "randint", "uniform", "normal", "exponential", "trunc", "heaviside",
    "randperm", "tril_indices", "triu_indices", "bucketize", "searchsorted", "floor_divide",
    "empty_permuted",
)  # fmt: skip
def constant(op: Operation) -> tuple[Any, int]:
    """Whatever its arguments are, no error of theirs changes the result."""
    return None, 0


@rule(
    "relu", "clamp", "clamp_min", "clamp_max", "hardtanh", "abs", "neg", "relu6", "threshold", "hardshrink",
    "nan_to_num", "positive", "resolve_neg", "frac", "fmod", "remainder",
)  # fmt: skip
def _lipschitz(op: Operation) -> tuple[Any, int]:
    """Exact, and never widens a difference."""
    return largest(op), 0


def largest(op: Operation) -> Tensor | None:
    """The largest of the arguments' errors, element by element; None if all are exact."""
    found: Tensor | None = None
    for error in op.errors.values():
        found = error if found is None else torch.maximum(found, error)
    return None if found is None else found.expand(op.output.shape)


@rule("_to_copy", "to")
def _cast(op: Operation) -> tuple[Any, int]:
    before = op.args[0]
    narrower = before.is_floating_point() and op.unit > op.unit_of(before)
    if not narrower:
        return op.errors.get(0), 0
    return op.error(0) + op.rounded, 1


@rule(*SUMS)
def _added(op: Operation) -> tuple[Any, int]:
    scale = abs(float(op.kwargs.get("alpha", 1)))
    a, b = op.args[:2]
    if torch._C._current_graph_task_id() != -1 and isinstance(b, Tensor) and a.shape == b.shape and scale == 1:
        # Gradients from several uses of a tensor, in whatever order they come: relative to each, as in a long sum.
        sizes = a.double().abs() + b.double().abs()
        return op.error(0) + op.error(1) + 2 * op.unit * sizes, 1
    added = op.rounded * (1 if scale == 1 else 2)
    if op.terms and (terms := summed(op)) is not None:
        added = terms.rounded - sum(each.rounded for each in op.terms.values())
    return op.error(0) + scale * op.error(1) + added, 1


def summed(op: Operation) -> Terms | None:
    """What the result of an addition is the sum of; None where a factor, too, is rounded.

    Two terms are added in one way, one rounding of their sum. More may be added in any order, so that partial sums may
    be as large as all terms together: (a + b) + c where the other side has (a + c) + b.
    """
    if abs(float(op.kwargs.get("alpha", 1))) != 1:
        return None
    sizes: Any = 0.0
    number = 0
    for place in (0, 1):
        known, operand = op.terms.get(place), op.value(place)
        sizes = sizes + (known.sizes if known is not None else abs(_wide(operand)))
        number += known.number if known is not None else 1
    sizes = torch.as_tensor(sizes, dtype=torch.float64).expand(op.output.shape)
    return Terms(sizes, number, op.rounded if number == 2 else (number - 1) * op.unit * sizes)


def _wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and not x.is_complex() else x


@rule("mul")
def _multiplied(op: Operation) -> tuple[Any, int]:
    a, b = (x.double() if isinstance(x, Tensor) else x for x in (op.value(0), op.value(1)))  # a mask is bool
    if not op.errors and _power_of_two(b):
        return None, 0
    roundings = 1 + _rounded_constant(b)
    carried = abs(a) * op.error(1) + abs(b) * op.error(0)
    for one, other, place in ((a, b, 1), (b, a, 0)):
        carried = _but_for_infinite(carried, one, other, op.error(place))
    return carried + roundings * op.rounded, roundings


@rule("div")
def _divided(op: Operation) -> tuple[Any, int]:
    b = op.value(1)
    if op.kwargs.get("rounding_mode") or (not op.errors and _power_of_two(b)):
        return None, 0
    roundings = 1 + _rounded_constant(b)
    carried = (op.error(0) + op.output.double().abs() * op.error(1)) / abs(b)
    if isinstance(b, Tensor) and isinstance(carried, Tensor):
        carried = torch.where(torch.isinf(b), torch.zeros_like(carried), carried)  # there the quotient is 0
    carried = _but_for_infinite(carried, op.value(0), b, op.error(1))
    return carried + roundings * op.rounded, roundings


def _but_for_infinite(carried: Any, one: Any, other: Any, error: Any) -> Any:
    """An error, but 0 where one operand is infinite and the other one has a certain sign, whatever its own error.

    There the result is infinite on both sides, as in masks whose exponential is taken.
    """
    if not isinstance(carried, Tensor) or not isinstance(one, Tensor):
        return carried
    sure = torch.isinf(one) & (torch.as_tensor(other).abs() > torch.as_tensor(error))
    return torch.where(sure, torch.zeros_like(carried), carried)


def _rounded_constant(x: Any) -> int:
    """1 for a constant like 0.1 that was rounded itself (and may be written x / 10 on the other side), else 0."""
    return int(isinstance(x, float) and x != 0 and not (x * 256).is_integer())


def _power_of_two(x: Any) -> bool:
    return isinstance(x, (int, float)) and x != 0 and math.frexp(abs(x))[0] == 0.5


@rule("sum", "mean", "cumsum")
def _summed(op: Operation) -> tuple[Any, int]:
    if not op.args[0].is_floating_point():  # counted
        return (op.rounded if op.name == "mean" else None), 1
    x, out = op.value(0).abs(), op.output
    terms = max(x.numel() // max(out.numel(), 1), 1) if op.name != "cumsum" else x.shape[op.args[1]]
    args = tuple(a for a in op.args[1:])
    total = op.func(x, *args, **{k: v for k, v in op.kwargs.items() if k != "dtype"})
    carried = op.func(op.errors[0], *args) if 0 in op.errors else 0.0
    last = op.rounded if op.name == "mean" else 0.0
    return carried + (terms - 1) * op.unit * total + last, terms - 1 + (op.name == "mean")


@rule("mm", "bmm", "addmm", "baddbmm", "addmv", "addbmm", "mv", "dot", "matmul", "linear")
def _matrix_product(op: Operation) -> tuple[Any, int]:
    """Gives alpha a @ b + beta c, each factor that isn't 1 rounding once more; addbmm sums over the batch as well."""
    first = 1 if op.name.startswith(("add", "badd")) else 0
    alpha, beta = (abs(float(op.kwargs.get(name, 1))) for name in ("alpha", "beta"))
    a, b = op.value(first), op.value(first + 1)
    batched = op.name == "addbmm"
    terms = a.shape[-1] * (len(a) if batched else 1) + first + (alpha != 1) + (beta != 1)

    def product(x: Tensor, y: Tensor) -> Tensor:
        found = alpha * (x @ (y.mT if op.name == "linear" else y))
        return found.sum(0) if batched else found

    magnitude = product(a.abs(), b.abs())
    carried: Any = 0.0
    if first in op.errors:
        carried = carried + product(op.errors[first], b.abs())
    if first + 1 in op.errors:
        carried = carried + product(a.abs(), op.errors[first + 1])
    if first:
        magnitude = magnitude + beta * op.value(0).abs()
        carried = carried + beta * op.error(0)
    elif op.name == "linear" and op.value(2) is not None:
        magnitude, carried, terms = magnitude + op.value(2).abs(), carried + op.error(2), terms + 1
    return carried + terms * op.unit * magnitude, terms
