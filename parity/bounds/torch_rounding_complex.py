"""The error bounds of complex numbers and Fourier transforms, to first order.

The error of a complex number is that of its distance in the plane. A product of two takes four products and two sums,
sqrt(5) u in all (Brent, Percival and Zimmermann, "Error bounds on complex floating-point multiplication", 2007).

A fast transform of n points has log2(n) stages, each a product with a root of unity, rounded itself, and a sum: Higham,
"Accuracy and Stability of Numerical Algorithms", theorem 24.2, bounds its error normwise by log2(n) times some 5 u.
Each value errs by no more than that norm, sqrt(n) |x|; other lengths are transformed as convolutions of
four times the length at most, by three transforms.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import MOVES, Operation, Rule
from parity.bounds.torch_rounding_functions import argument
from parity.bounds.torch_rounding_rules import RULES, rule

# Operations whose rules hold of complex numbers as well; of any other one, nothing is known there.
READY: set[str] = {
    *MOVES,
    "index",
    "index_select",
    "gather",
    "repeat",
    "flip",
    "roll",
    "view_copy",
    "slice_backward",
    "select_backward",
    "neg",
    "constant_pad_nd",
    "zeros",
    "zeros_like",
    "ones_like",
    "new_zeros",
    "resolve_neg",
    "where",
    "fill",
    "zero",
    "new_empty",
    "new_empty_strided",
    "empty_strided",
    "repeat_interleave",
    "masked_fill",
}

_PRODUCT = 3  # sqrt(5) roundings
_STAGE = 8  # roundings a stage of a transform, of either side's kind


def is_complex(op: Operation) -> bool:
    """Whether complex numbers go in or come out."""
    results = op.result if isinstance(op.result, (tuple, list)) else [op.result]
    return any(isinstance(t, Tensor) and t.is_complex() for t in (*op.args, *results))


def _either(name: str, complex_rule: Rule) -> None:
    """Have an operation's rule give way to another one where numbers are complex."""
    real = RULES[name]
    RULES[name] = lambda op: complex_rule(op) if is_complex(op) else real(op)
    READY.add(name)


def _size(x: Any) -> Any:
    return x.abs().double() if isinstance(x, Tensor) else abs(x)


def _times(op: Operation) -> tuple[Any, int]:
    a, b = _size(op.args[0]), _size(op.args[1])
    return b * op.error(0) + a * op.error(1) + _PRODUCT * op.unit * a * b, _PRODUCT


def _over(op: Operation) -> tuple[Any, int]:
    """Divided by a real number, or by |b|^2 times the other's mirror image: two products and a quotient."""
    a, b = _size(op.args[0]), _size(op.args[1])
    return (op.error(0) + a / b * op.error(1)) / b + 3 * _PRODUCT * op.unit * a / b, 3 * _PRODUCT


def _plus(op: Operation) -> tuple[Any, int]:
    scale = abs(op.kwargs.get("alpha", 1))
    sizes = _size(op.args[0]) + scale * _size(op.args[1])
    return op.error(0) + scale * op.error(1) + 2 * op.unit * sizes, 2


def _sum(op: Operation) -> tuple[Any, int]:
    x, rest = _size(op.args[0]), op.args[1:]
    kept = {k: v for k, v in op.kwargs.items() if k != "dtype"}
    terms = max(x.numel() // max(op.output.numel(), 1), 1)
    carried = op.func(op.errors[0], *rest, **kept) if 0 in op.errors else 0.0
    return carried + terms * op.unit * op.func(x, *rest, **kept), terms


def _modulus(op: Operation) -> tuple[Any, int]:
    return op.error(0) + 4 * op.rounded, 4


for _name, _rule in {
    "mul": _times,
    "div": _over,
    "add": _plus,
    "sub": _plus,
    "sum": _sum,
    "mean": _sum,
    "abs": _modulus,
}.items():
    _either(_name, _rule)

for _name in ("_neg_view", "_conj", "conj", "resolve_conj", "_conj_physical", "conj_physical"):
    RULES[_name] = lambda op: (op.errors.get(0), 0)
    READY.add(_name)
READY |= {"real", "imag", "view_as_real", "view_as_complex", "complex", "polar", "angle", "sgn", "masked_fill"}


@rule("real", "imag")
def _part(op: Operation) -> tuple[Any, int]:
    return op.errors.get(0), 0


@rule("view_as_real")
def _as_real(op: Operation) -> tuple[Any, int]:
    error = op.errors.get(0)
    return None if error is None else error.unsqueeze(-1).expand(op.output.shape), 0


@rule("view_as_complex")
def _as_complex(op: Operation) -> tuple[Any, int]:
    error = op.errors.get(0)
    return None if error is None else error.square().sum(-1).sqrt(), 0


@rule("complex")
def _joined(op: Operation) -> tuple[Any, int]:
    return (op.error(0) + op.error(1) + torch.zeros(op.output.shape, dtype=torch.float64) if op.errors else None), 0


@rule("polar")
def _polar(op: Operation) -> tuple[Any, int]:
    """A length times cos and sin of an angle."""
    size = op.value(0).abs()
    return op.error(0) + size * op.error(1) + 2 * (ELEMENTARY + 1) * op.unit * size, ELEMENTARY + 1


_REAL_SIGN = RULES["sgn"]


@rule("sgn")
def _direction(op: Operation) -> tuple[Any, int]:
    """Of a complex number x / |x|."""
    if not is_complex(op):
        return _REAL_SIGN(op)
    size = _size(op.args[0])
    carried = torch.where(size > 0, 2 * op.error(0) / size, torch.zeros_like(size))
    return carried + 8 * op.rounded, 8


@rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _transformed(op: Operation) -> tuple[Any, int]:
    """Sums of x times roots of unity over all points of the axes, scaled."""
    x, dims = _size(op.args[0]), [int(d) for d in op.args[1]]
    normalization = int(argument(op, 2, "normalization", 0))
    points = math.prod(x.shape[d] for d in dims)
    if op.name == "_fft_c2r":
        points = points // x.shape[dims[-1]] * int(argument(op, 3, "last_dim_size"))
    scale = {0: 1.0, 1: points**-0.5, 2: 1 / points}[normalization]
    twice = 2.0 if op.name == "_fft_c2r" else 1.0  # what isn't stored mirrors the rest
    norm = (twice * (x * x).sum(dims, keepdim=True)).sqrt() * math.sqrt(points)
    stages = 3 * (math.log2(4 * max(points, 2)) + 1)
    own = _STAGE * stages * op.unit * scale * norm
    carried = twice * scale * op.errors[0].sum(dims, keepdim=True) if 0 in op.errors else 0.0
    return (own + carried).expand(op.output.shape), math.ceil(_STAGE * stages)


READY |= {"_fft_r2c", "_fft_c2c", "_fft_c2r"}
