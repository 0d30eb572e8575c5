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

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import Operation, Rule

RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Any:
    def add(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return add


@_rule(
    "empty", "empty_like", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_ones",
    "new_empty", "new_empty_strided", "empty_strided", "arange", "scalar_tensor", "fill", "zero", "eye", "lift_fresh",
    "new_full", "bernoulli", "rand", "rand_like", "randn", "sign", "sgn", "floor", "ceil", "round", "one_hot",
    "_efficientzerotensor",
)  # fmt: skip
def _constant(op: Operation) -> tuple[Any, int]:
    return None, 0


@_rule(
    "view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "expand", "slice", "select",
    "clone", "detach", "alias", "squeeze", "unsqueeze", "cat", "stack", "split", "split_with_sizes", "chunk", "unbind",
    "index", "index_select", "gather", "repeat", "flip", "roll", "unfold", "im2col", "narrow", "diagonal", "as_strided",
    "slice_backward", "select_backward", "tril", "triu", "pixel_shuffle", "contiguous", "movedim", "unsafe_split",
    "value_selecting_reduction_backward",
)  # fmt: skip
def _moved(op: Operation) -> tuple[Any, int]:
    """Moves or selects values: the errors move along, and nothing is rounded."""
    if not op.errors:
        return None, 0
    args = tuple(op.errors.get(i, _exact_like(a)) for i, a in enumerate(op.args))
    return op.func(*args, **op.kwargs), 0


def _exact_like(arg: Any) -> Any:
    # Only what is floating point can carry an error; an index tensor stays an index.
    if isinstance(arg, Tensor) and arg.is_floating_point():
        return arg.double()
    return arg


@_rule("relu", "clamp", "clamp_min", "clamp_max", "hardtanh", "abs", "neg", "relu6")
def _lipschitz(op: Operation) -> tuple[Any, int]:
    """Exact, and never widens a difference."""
    return op.errors.get(0), 0


@_rule("constant_pad_nd")
def _padded(op: Operation) -> tuple[Any, int]:
    error = op.errors.get(0)
    return (None if error is None else torch.nn.functional.pad(error, op.args[1])), 0


@_rule("copy", "where", "masked_fill", "maximum", "minimum")
def _either(op: Operation) -> tuple[Any, int]:
    """One of its arguments, element by element."""
    errors = [e for e in op.errors.values() if isinstance(e, Tensor)]
    if not errors:
        return None, 0
    worst = torch.zeros_like(op.output, dtype=torch.float64)
    for error in errors:
        worst = torch.maximum(worst, error)
    return worst, 0


@_rule("_to_copy", "to")
def _cast(op: Operation) -> tuple[Any, int]:
    before = op.args[0]
    narrower = before.is_floating_point() and op.unit > op.unit_of(before)
    if not narrower:
        return op.errors.get(0), 0
    return op.error(0) + op.rounded, 1


@_rule("add", "sub", "rsub")
def _added(op: Operation) -> tuple[Any, int]:
    scale = abs(float(op.kwargs.get("alpha", 1)))
    return op.error(0) + scale * op.error(1) + op.rounded * (1 if scale == 1 else 2), 1


@_rule("mul")
def _multiplied(op: Operation) -> tuple[Any, int]:
    a, b = (x.double() if isinstance(x, Tensor) else x for x in (op.value(0), op.value(1)))  # a mask is bool
    if not op.errors and _power_of_two(b):
        return None, 0
    roundings = 1 + _rounded_constant(b)
    return abs(a) * op.error(1) + abs(b) * op.error(0) + roundings * op.rounded, roundings


@_rule("div")
def _divided(op: Operation) -> tuple[Any, int]:
    b = op.value(1)
    if not op.errors and _power_of_two(b):
        return None, 0
    roundings = 1 + _rounded_constant(b)
    return (op.error(0) + op.output.double().abs() * op.error(1)) / abs(b) + roundings * op.rounded, roundings


def _rounded_constant(x: Any) -> int:
    """1 for a constant like 0.1 that was rounded itself (and may be written x / 10 on the other side), else 0."""
    return int(isinstance(x, float) and x != 0 and not (x * 256).is_integer())


def _power_of_two(x: Any) -> bool:
    return isinstance(x, (int, float)) and x != 0 and math.frexp(abs(x))[0] == 0.5


@_rule("sum", "mean", "cumsum")
def _summed(op: Operation) -> tuple[Any, int]:
    x, out = op.value(0).abs(), op.output
    terms = max(x.numel() // max(out.numel(), 1), 1) if op.name != "cumsum" else x.shape[op.args[1]]
    args = tuple(a for a in op.args[1:])
    total = op.func(x, *args, **{k: v for k, v in op.kwargs.items() if k != "dtype"})
    carried = op.func(op.errors[0], *args) if 0 in op.errors else 0.0
    last = op.rounded if op.name == "mean" else 0.0
    return carried + (terms - 1) * op.unit * total + last, terms - 1 + (op.name == "mean")


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def _averaged(op: Operation) -> tuple[Any, int]:
    """A window of m terms: m - 1 roundings for the sum and one for the division."""
    x = op.value(0)
    terms = _window_terms(op)
    carried = op.func(op.errors[0], *op.args[1:], **op.kwargs) if 0 in op.errors else 0.0
    return carried + terms * op.unit * op.func(x.abs(), *op.args[1:], **op.kwargs), terms


def _window_terms(op: Operation) -> int:
    sizes = op.args[1]
    if "adaptive" not in op.name:
        spatial = op.args[0].ndim - 2
        return math.prod(sizes) if len(sizes) == spatial else int(sizes[0]) ** spatial
    # Window i of m over n pixels is [floor(i n / m), ceil((i + 1) n / m)).
    sides = op.args[0].shape[-len(sizes) :]
    return math.prod(
        max(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in zip(sides, sizes, strict=True)
    )


@_rule("max_pool2d_with_indices", "max_pool3d_with_indices", "amax", "max")
def _maximum(op: Operation) -> tuple[Any, int]:
    """|max(a + e) - max(a)| <= max |e| over the window."""
    if 0 not in op.errors:
        return None, 0
    result = op.func(op.errors[0], *op.args[1:], **op.kwargs)
    return (result[0] if isinstance(result, (tuple, list)) else result), 0


@_rule("max_pool2d_with_indices_backward", "avg_pool2d_backward", "_adaptive_avg_pool2d_backward",
       "avg_pool3d_backward", "constant_pad_nd_backward")  # fmt: skip
def _scattered(op: Operation) -> tuple[Any, int]:
    """Each pixel sums the shares of the windows that hold it; counted by scattering ones."""
    rest = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    g = op.value(0)
    overlaps = 1
    if op.name.startswith("max_pool"):
        overlaps = max(int(op.func(torch.ones_like(g), *rest, **op.kwargs).max()), 1)
    else:
        support = op.func(torch.ones_like(g), *rest, **op.kwargs)
        overlaps = max(math.ceil(float(support.max() / support[support > 0].min())), 1) + 1
    carried = op.func(op.errors[0], *rest, **op.kwargs) if 0 in op.errors else 0.0
    if overlaps == 1:
        return (carried if isinstance(carried, Tensor) else None), 0
    return carried + overlaps * op.unit * op.func(g.abs(), *rest, **op.kwargs), overlaps


@_rule("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "matmul", "linear")
def _matrix_product(op: Operation) -> tuple[Any, int]:
    first = 1 if op.name in ("addmm", "baddbmm") else 0
    a, b = op.value(first), op.value(first + 1)
    terms = a.shape[-1]
    magnitude = a.abs() @ b.abs()
    carried: Any = 0.0
    if first in op.errors:
        carried = carried + op.errors[first] @ b.abs()
    if first + 1 in op.errors:
        carried = carried + a.abs() @ op.errors[first + 1]
    if first:
        magnitude = magnitude + op.value(0).abs()
        carried = carried + op.error(0)
    return carried + (terms + first) * op.unit * magnitude, terms + first


@_rule("pow")
def _power(op: Operation) -> tuple[Any, int]:
    """x^p; also what exp(p log x) costs, whose argument is rounded after it was magnified by |p log x|."""
    x, p, y = op.value(0), op.value(1), op.output.double().abs()
    if not isinstance(x, Tensor):
        x = torch.tensor(float(x), dtype=torch.float64)
    if not isinstance(p, Tensor) and p in (1, 2, 3):
        roundings = p - 1
        own = roundings * op.rounded
        return own + abs(p) * x.abs() ** (p - 1) * op.error(0), roundings
    magnified = (p * x.abs().clamp_min(torch.finfo(torch.float64).tiny).log()).abs()
    own = op.unit * y * (ELEMENTARY + (1 + ELEMENTARY) * magnified)
    relative = torch.where(x != 0, op.error(0) / x.abs(), torch.zeros_like(y)) if 0 in op.errors else 0.0
    return own + abs(p) * y * relative, ELEMENTARY


def _elementary(slope: Any) -> Rule:
    """Rule of a function of one variable from its derivative `slope(x, y)`."""

    def rule(op: Operation) -> tuple[Any, int]:
        carried = slope(op.value(0), op.output.double()).abs() * op.errors[0] if 0 in op.errors else 0.0
        return carried + ELEMENTARY * op.rounded, ELEMENTARY

    return rule


RULES["exp"] = _elementary(lambda x, y: y)
RULES["log"] = _elementary(lambda x, y: 1 / x)
RULES["tanh"] = _elementary(lambda x, y: 1 - y * y)
RULES["sigmoid"] = _elementary(lambda x, y: y * (1 - y))
RULES["sqrt"] = _elementary(lambda x, y: 0.5 / y)
RULES["rsqrt"] = _elementary(lambda x, y: 0.5 * y / x)
RULES["reciprocal"] = _elementary(lambda x, y: y * y)
RULES["erf"] = _elementary(lambda x, y: 1.13 * torch.exp(-x * x))
RULES["sin"] = _elementary(lambda x, y: torch.cos(x))
RULES["cos"] = _elementary(lambda x, y: torch.sin(x))


@_rule("gelu", "silu", "elu", "leaky_relu", "hardswish", "hardsigmoid", "softplus", "mish")
def _activation(op: Operation) -> tuple[Any, int]:
    """Products of x and a bounded factor: slopes stay below 1.2, and cancellation is relative to |x|."""
    own = (ELEMENTARY + 4) * op.unit * (op.value(0).abs() + op.output.double().abs())
    return 1.2 * op.error(0) + own, ELEMENTARY + 4


@_rule("tanh_backward", "sigmoid_backward")
def _activation_backward(op: Operation) -> tuple[Any, int]:
    g, y = op.value(0), op.value(1)
    slope, bend = ((1 - y * y), 2 * y) if op.name == "tanh_backward" else (y * (1 - y), 1 - 2 * y)
    # 1 - y^2 is rounded relative to 1, not to itself.
    own = op.unit * g.abs() * (2 + y.abs()) + op.rounded
    return own + slope.abs() * op.error(0) + (g * bend).abs() * op.error(1), 3


@_rule("_softmax", "_log_softmax")
def _softmax(op: Operation) -> tuple[Any, int]:
    """exp(x - max) over its sum of m terms; the subtraction's rounding is relative to |x| + |max|."""
    x, dim = op.value(0), op.args[1]
    terms = x.shape[dim]
    spread = (x.abs() + x.abs().amax(dim, keepdim=True)) * op.unit + op.error(0)
    inside = spread + spread.amax(dim, keepdim=True) + (ELEMENTARY + terms) * op.unit
    y = op.output.double().abs()
    if op.name == "_softmax":
        return y * inside + 2 * op.rounded, terms + ELEMENTARY + 3
    return inside + (ELEMENTARY + 1) * op.rounded, terms + ELEMENTARY + 3


@_rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(op: Operation) -> tuple[Any, int]:
    g, y, dim = op.value(0), op.value(1), op.args[2]
    terms = g.shape[dim]
    probability = y if op.name == "_softmax_backward_data" else y.exp()
    weights = probability * g.abs() if op.name == "_softmax_backward_data" else g.abs()
    total = weights.sum(dim, keepdim=True)
    scale = probability if op.name == "_softmax_backward_data" else 1.0
    own = (terms + ELEMENTARY + 2) * op.unit * (scale * g.abs() + probability * total)
    error = op.error(0)
    carried = error + probability * error.sum(dim, keepdim=True) if isinstance(error, Tensor) else 0.0
    spread = op.error(1) * (g.abs() + total) if 1 in op.errors else 0.0
    return own + carried + spread, terms + ELEMENTARY + 2


@_rule("embedding")
def _embedded(op: Operation) -> tuple[Any, int]:
    return (op.func(op.errors[0], *op.args[1:], **op.kwargs) if 0 in op.errors else None), 0


@_rule("native_dropout", "dropout")
def _dropped(op: Operation) -> tuple[Any, int]:
    return op.error(0) * 2 + op.rounded, 1


@_rule("threshold_backward", "hardtanh_backward")
def _masked(op: Operation) -> tuple[Any, int]:
    """The gradient where the input let it through; which inputs do is the reference's choice."""
    if 0 not in op.errors:
        return None, 0
    return op.func(op.errors[0], *(_exact_like(a) for a in op.args[1:]), **op.kwargs), 0


@_rule("leaky_relu_backward", "embedding_dense_backward")
def _masked_gradient(op: Operation) -> tuple[Any, int]:
    terms = op.args[0].numel() if op.name.startswith("embedding") else 1
    rest = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    magnitude = op.func(op.value(0).abs(), *rest, **op.kwargs).abs()
    carried = op.func(op.errors[0], *rest, **op.kwargs) if 0 in op.errors else 0.0
    return carried + terms * op.unit * magnitude, terms


@_rule("col2im", "convolution", "unfold_backward", "index_put", "scatter_add")
def _accumulated(op: Operation) -> tuple[Any, int]:
    """Sums of moved terms (or of products, for `convolution`), counted by running the operation on ones."""
    floating = [i for i, a in enumerate(op.args) if isinstance(a, Tensor) and a.is_floating_point()]

    def run(values: dict[int, Tensor]) -> Tensor:
        return op.func(*(values.get(i, a) for i, a in enumerate(op.args)), **op.kwargs).double()

    absolute = {i: op.value(i).abs() for i in floating}
    terms = int(run({i: torch.ones_like(absolute[i]) for i in floating}).max())
    error = terms * op.unit * run(absolute)
    for i, bound in op.errors.items():
        error = error + run({**absolute, i: bound})
    return error, terms
