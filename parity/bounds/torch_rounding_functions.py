"""The error bounds of elementary functions, powers, norms and other arithmetic without weights, to first order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import Formula, Operation, Rule
from parity.bounds.torch_rounding_rules import RULES, largest, rule

Slope = Callable[[Tensor, Tensor], Any]


def times(slope: Any, error: Any) -> Any:
    """|slope| error, and 0 where there is no error, however steep it is."""
    return torch.where(error == 0, torch.zeros_like(error), abs(slope) * error) if isinstance(error, Tensor) else 0.0


def elementary(slope: Slope, size: Slope = lambda x, y: y) -> Rule:
    """Rule of a function of one variable.

    Args:
        slope: its derivative, of x and y.
        size: what its roundings are relative to; not the result where that may cancel in any way of computing it.
    """

    def of(op: Operation) -> tuple[Any, int]:
        x, y = op.value(0), op.output.double()
        own = ELEMENTARY * op.unit * size(x, y).abs()
        own = torch.where(torch.isfinite(own), own, torch.zeros_like(own))
        return times(slope(x, y), op.error(0)) + own, ELEMENTARY

    return of


def _near_one(x: Tensor, y: Tensor) -> Tensor:
    return y.abs() + x.abs().clamp_max(1.0)


_LN2, _LN10 = math.log(2), math.log(10)
RULES["exp"] = elementary(lambda x, y: y)
RULES["exp2"] = elementary(lambda x, y: _LN2 * y, lambda x, y: y * (1 + x.abs()))
RULES["expm1"] = elementary(lambda x, y: y + 1)
RULES["log"] = elementary(lambda x, y: 1 / x)
RULES["log2"] = elementary(lambda x, y: 1 / (_LN2 * x))
RULES["log10"] = elementary(lambda x, y: 1 / (_LN10 * x))
RULES["log1p"] = elementary(lambda x, y: 1 / (1 + x))
RULES["tanh"] = elementary(lambda x, y: 1 - y * y)
RULES["sigmoid"] = elementary(lambda x, y: y * (1 - y))
RULES["rsqrt"] = elementary(lambda x, y: 0.5 * y / x)
RULES["reciprocal"] = elementary(lambda x, y: y * y)
RULES["square"] = elementary(lambda x, y: 2 * x)
RULES["erf"] = elementary(lambda x, y: 1.13 * torch.exp(-x * x))
RULES["erfc"] = elementary(lambda x, y: 1.13 * torch.exp(-x * x), lambda x, y: y * (1 + x * x) + (x < 1))
RULES["erfinv"] = elementary(lambda x, y: 0.887 * torch.exp(y * y), lambda x, y: y * (1 + y * y))
RULES["sin"] = elementary(lambda x, y: torch.cos(x), _near_one)
RULES["cos"] = elementary(lambda x, y: torch.sin(x), lambda x, y: torch.ones_like(y))
RULES["tan"] = elementary(lambda x, y: 1 + y * y, lambda x, y: y.abs() + x.abs().clamp_max(1.0) * (1 + y * y))
RULES["asin"] = elementary(lambda x, y: 1 / torch.sqrt(1 - x * x))
RULES["acos"] = elementary(lambda x, y: 1 / torch.sqrt(1 - x * x), lambda x, y: y + 1)
RULES["atan"] = elementary(lambda x, y: 1 / (1 + x * x))
RULES["sinh"] = elementary(lambda x, y: torch.cosh(x))
RULES["cosh"] = elementary(lambda x, y: torch.sinh(x))
RULES["asinh"] = elementary(lambda x, y: 1 / torch.sqrt(1 + x * x))
RULES["acosh"] = elementary(lambda x, y: 1 / torch.sqrt(x * x - 1), lambda x, y: y + 1 / y.clamp_min(1e-3))
RULES["atanh"] = elementary(lambda x, y: 1 / (1 - x * x))
RULES["sinc"] = elementary(lambda x, y: torch.full_like(y, math.pi), lambda x, y: torch.ones_like(y))
RULES["lgamma"] = elementary(
    lambda x, y: torch.digamma(x), lambda x, y: y.abs() + 1 + x.abs() * torch.log(x.abs() + 1) + torch.digamma(x).abs()
)
RULES["digamma"] = elementary(lambda x, y: torch.polygamma(1, x), lambda x, y: y.abs() + 1 + torch.polygamma(1, x))
for _name in ("deg2rad", "rad2deg"):
    RULES[_name] = elementary(lambda x, y: y / x)


@rule("sqrt")
def _root(op: Operation) -> tuple[Any, int]:
    """|sqrt(x + e) - sqrt(x)| is at most e / sqrt(x), and at most sqrt(|e|) where x is as small as its error."""
    y, error = op.output.double(), op.error(0)
    if not isinstance(error, Tensor):
        return ELEMENTARY * op.rounded, ELEMENTARY
    steep = torch.where(y > 0, error / y, torch.full_like(error, math.inf))
    return torch.minimum(steep, error.sqrt()) + ELEMENTARY * op.rounded, ELEMENTARY


@rule("pow")
def _power(op: Operation) -> tuple[Any, int]:
    """x^p; also what exp(p log x) costs, whose argument is rounded after it was magnified by |p log x|."""
    x, p, y = op.value(0), op.value(1), op.output.double().abs()
    if not isinstance(x, Tensor):
        x = torch.tensor(float(x), dtype=torch.float64)
    if not isinstance(p, Tensor) and p in (0, 1, 2, 3):
        roundings = max(int(p) - 1, 0)
        own = roundings * op.rounded
        return own + (abs(p) * x.abs() ** (p - 1) * op.error(0) if p else 0.0), roundings
    logarithm = x.abs().clamp_min(torch.finfo(torch.float64).tiny).log().abs()
    own = op.unit * y * (ELEMENTARY + (1 + ELEMENTARY) * (p * logarithm).abs())
    relative = torch.where(x != 0, op.error(0) / x.abs(), torch.zeros_like(y)) if 0 in op.errors else 0.0
    return own + abs(p) * y * relative + y * logarithm * op.error(1), ELEMENTARY


@rule("cumprod", "prod")
def _multiplied_up(op: Operation) -> tuple[Any, int]:
    """A product of m factors: |(x + e)(y + f) - x y| summed over the factors, and m - 1 roundings."""
    x, rest = op.value(0).abs(), op.args[1:]
    kept = {k: v for k, v in op.kwargs.items() if k != "dtype"}
    whole = op.func(x, *rest, **kept)
    terms = x.shape[rest[0]] if rest else x.numel()
    carried = op.func(x + op.errors[0], *rest, **kept) - whole if 0 in op.errors else 0.0
    return carried + (terms - 1) * op.unit * whole, terms - 1


def formula(made: Callable[[Operation], Formula], *places: int | str) -> Rule:
    """Rule of an operation that costs as much as a formula, made for the operation's settings, of some arguments."""

    def of(op: Operation) -> tuple[Any, int]:
        return op.cost(made(op), *places)

    return of


def register_formula(name: str, written: Formula, *places: int | str) -> None:
    """Likewise where the formula needs no settings."""
    RULES[name] = formula(lambda op: written, *places)


def argument(op: Operation, place: int, name: str, default: Any = None) -> Any:
    """A setting by place or by name."""
    return op.args[place] if place < len(op.args) else op.kwargs.get(name, default)


def _sized(size: Any, by: float) -> Any:
    return size if by == 1 else by * size


RULES["addcmul"] = formula(lambda op: lambda x, a, b: x + _sized(a * b, op.kwargs.get("value", 1)), 0, 1, 2)
RULES["addcdiv"] = formula(lambda op: lambda x, a, b: x + _sized(a / b, op.kwargs.get("value", 1)), 0, 1, 2)
# From either end, x + w (end - x) or end - (1 - w) (end - x): as much as both halves cost.
register_formula("lerp", lambda x, end, weight: x * (1 - weight) + weight * (end - x) + weight * x, 0, 1, 2)
register_formula("hypot", lambda a, b: torch.sqrt(a * a + b * b), 0, 1)
register_formula("logit", lambda x: torch.log(x) - torch.log(1 - x), 0)


@rule("linspace", "arange")
def _steps(op: Operation) -> tuple[Any, int]:
    """First + i step: rounded relative to the larger end, but for whole numbers."""
    numbers = [a for a in op.args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if op.name == "arange" and all(float(n).is_integer() for n in numbers):
        return None, 0
    ends = max(abs(float(n)) for n in numbers[:2])
    return torch.full_like(op.output, 4 * op.unit * ends, dtype=torch.float64), 4


@rule("xlogy")
def _x_log_y(op: Operation) -> tuple[Any, int]:
    """The product x log y, and 0 where x is 0."""
    x, y = op.value(0), op.value(1)
    log = torch.where(torch.as_tensor(x) == 0, torch.zeros((), dtype=torch.float64), torch.log(torch.as_tensor(y)))
    carried = times(log, op.error(0)) + times(x / y, op.error(1))
    return carried + (ELEMENTARY + 1) * op.rounded, ELEMENTARY + 1


@rule("atan2")
def _angle(op: Operation) -> tuple[Any, int]:
    y, x = op.value(0), op.value(1)
    square = x * x + y * y
    carried = times(x / square, op.error(0)) + times(y / square, op.error(1))
    return carried + (ELEMENTARY + 1) * op.rounded, ELEMENTARY + 1


@rule("logaddexp")
def _log_of_sum(op: Operation) -> tuple[Any, int]:
    """Computed as m + log1p(exp(-|a - b|)), m the larger: slopes add up to 1, roundings are relative to both."""
    a, b = op.value(0), op.value(1)
    own = op.unit * ((ELEMENTARY + 3) * (a.abs() + b.abs()).clamp_max(1e300) + 2 * ELEMENTARY)
    carried = largest(op)
    return own if carried is None else own + carried, 2 * ELEMENTARY


def _norm(op: Operation) -> tuple[Any, int]:
    order = argument(op, 1, "ord", 2)
    order = 2.0 if order is None else float(order)
    dims = argument(op, 2, "dim") or None
    keep = bool(argument(op, 3, "keepdim", False))
    dims = list(range(op.args[0].ndim)) if dims is None else dims

    def written(x: Tensor) -> Tensor:
        if order == 2:
            return torch.sqrt((x * x).sum(dims, keepdim=keep))
        if order == 1:
            return x.abs().sum(dims, keepdim=keep)
        if math.isinf(order):
            return x.abs().amax(dims, keepdim=keep) if order > 0 else x.abs().amin(dims, keepdim=keep)
        return (x.abs() ** order).sum(dims, keepdim=keep) ** (1 / order)

    return op.cost(written, 0)


RULES["linalg_vector_norm"] = RULES["norm"] = _norm


def _variance(op: Operation) -> tuple[Any, int]:
    """Mean of squares of what is left without the mean; one pass or two."""
    dims = argument(op, 1, "dim")
    dims = list(range(op.args[0].ndim)) if dims is None or dims == [] else dims
    correction, keep = op.kwargs.get("correction", 1), bool(op.kwargs.get("keepdim", False))
    terms = math.prod(op.args[0].shape[d] for d in ([dims] if isinstance(dims, int) else dims))

    def written(x: Tensor) -> Any:
        mean = x.mean(dims, keepdim=True)
        variance = ((x - mean) ** 2).sum(dims, keepdim=keep) / max(terms - (1 if correction is None else correction), 0)
        spread = torch.sqrt(variance) if op.name.startswith("std") else variance
        return (spread, x.mean(dims, keepdim=keep)) if op.name.endswith("mean") else spread

    return op.cost(written, 0)


for _name in ("var", "std", "var_mean", "std_mean"):
    RULES[_name] = _variance


def _weight_normalized(v: Tensor, g: Tensor, dim: int) -> Any:
    dims = [d for d in range(v.ndim) if d != dim % v.ndim]
    norm = torch.sqrt((v * v).sum(dims, keepdim=True))
    return v * (g / norm), norm


RULES["_weight_norm_interface"] = formula(
    lambda op: lambda v, g: _weight_normalized(v, g, argument(op, 2, "dim", 0)), 0, 1
)


def _weight_norm_backward(op: Operation) -> tuple[Any, int]:
    dims = [d for d in range(op.args[1].ndim) if d != op.args[4] % op.args[1].ndim]

    def written(grad: Tensor, v: Tensor, g: Tensor, norm: Tensor) -> Any:
        along = (grad * v).sum(dims, keepdim=True) / norm
        return g / norm * grad - v * (g * along / (norm * norm)), along

    return op.cost(written, 0, 1, 2, 3)


RULES["_weight_norm_interface_backward"] = _weight_norm_backward


@rule("_cdist_forward")
def _distances(op: Operation) -> tuple[Any, int]:
    """By differences, or for many rows by |a|^2 + |b|^2 - 2 a b, which cancels."""
    if op.args[2] != 2:
        raise ValueError("only Euclidean distances are known")

    def expanded(a: Tensor, b: Tensor) -> Tensor:
        squares = (a * a).sum(-1, keepdim=True) + (b * b).sum(-1, keepdim=True).mT - 2 * (a @ b.mT)
        return torch.sqrt(squares.clamp_min(0.0))

    return op.cost(expanded, 0, 1)


@rule("native_dropout", "dropout")
def _dropped(op: Operation) -> tuple[Any, int]:
    """What is kept is scaled by 1 / (1 - p)."""
    p = float(op.args[1])
    return op.error(0) / max(1 - p, 1e-300) + 2 * op.rounded, 2
