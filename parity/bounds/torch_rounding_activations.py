"""The error bounds of activation functions, forward and backward, to first order.

Both frameworks must fit, whatever form of a function they compute: x (1 + erf(x / sqrt 2)) / 2 or
x erfc(-x / sqrt 2) / 2, exp(x) - 1 or expm1(x), z / (1 + z) or exp(x - log(1 + exp x)). So where a form cancels,
roundings count relative to what cancels, and derivatives cost what their products cost when they are written out; where
such a function has long reached its limit (|x| above 40 for exp(-|x|), 8 for GELU's tanh) it costs what it costs there.

Functions with a kink carry errors with their largest slope, since an error may cross the kink.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_exact_forms import SOFTPLUS_THRESHOLD
from parity.bounds.torch_operation import Formula, Operation, Rule
from parity.bounds.torch_rounding_functions import argument, formula, register_formula, times
from parity.bounds.torch_rounding_rules import RULES, rule

_ROOT_HALF, _DENSITY, _ROOT, _CUBIC = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi), math.sqrt(2 / math.pi), 0.044715
_FLAT = 40.0  # exp(-40) is below float64's roundings beside 1
_FLOAT32 = 2.0**-24
_TANH_FLAT = 8.0  # GELU's tanh is 1 there

# The erf of PyTorch's vectorised kernels in float32, 1 - t (c1 + t (c2 + ...)) exp(-x^2), t = 1 / (1 + 0.3275911 |x|):
# Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26, which errs by at most 1.5e-7 by itself.
_ERF_SCALE, _ERF_APART = 0.3275911, 1.5e-7
_ERF_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)  # the innermost first


def activation(slope: float) -> Rule:
    """Products of x and a bounded factor: cancellation is relative to |x|.

    Args:
        slope: the largest that the function has.
    """

    def of(op: Operation) -> tuple[Any, int]:
        own = (ELEMENTARY + 4) * op.unit * (op.value(0).abs() + op.output.double().abs())
        return slope * op.error(0) + own, ELEMENTARY + 4

    return of


RULES["gelu"], RULES["silu"], RULES["mish"] = activation(1.13), activation(1.1), activation(1.09)
RULES["hardswish"], RULES["hardsigmoid"], RULES["log_sigmoid_forward"] = (
    activation(1.5),
    activation(1 / 6),
    activation(1.0),
)


@rule("leaky_relu", "rrelu_with_noise")
def _leaky(op: Operation) -> tuple[Any, int]:
    """The input, or the input times a constant, which is rounded itself."""
    slopes = [argument(op, i, "negative_slope", 0.01) for i in ((1,) if op.name == "leaky_relu" else (2, 3))]
    own = torch.where(op.value(0) > 0, torch.zeros_like(op.rounded), 2 * op.rounded)
    return max(1.0, *(abs(float(slope)) for slope in slopes)) * op.error(0) + own, 2


def _exponential(op: Operation) -> tuple[float, float, float]:
    """(factor, scale, input scale) of scale x for x > 0, else scale factor (exp(input_scale x) - 1)."""
    alpha = float(argument(op, 1, "alpha", 1.0))
    if op.name == "celu":
        return alpha, 1.0, 1 / alpha
    if op.name == "selu":
        return 1.6732632423543772, 1.0507009873554805, 1.0
    return alpha, float(argument(op, 2, "scale", 1.0)), float(argument(op, 3, "input_scale", 1.0))


@rule("elu", "celu", "selu")
def _elu(op: Operation) -> tuple[Any, int]:
    """exp(x) - 1 cancels near 0: its roundings are relative to 1."""
    alpha, scale, inner = map(abs, _exponential(op))
    x = op.value(0)
    own = torch.where(x > 0, 2 * scale * x, scale * alpha * (ELEMENTARY + 4 + (inner * x).abs().clamp_max(_FLAT)))
    return max(scale, scale * alpha * inner) * op.error(0) + op.unit * own, ELEMENTARY + 4


@rule("elu_backward")
def _elu_backward(op: Operation) -> tuple[Any, int]:
    """The factor scale for x > 0, else input_scale (y + alpha scale), or the same as an exponential of x."""
    g, y = op.value(0), op.value(5)
    alpha, scale, inner = (abs(float(a)) for a in op.args[1:4])
    size = scale * alpha * inner
    # Of the input, exp(input_scale x) rounds its argument; of the result, 1 is added.
    exponent = 0.0 if op.args[4] else (inner * y).abs().clamp_max(_FLAT)
    own = g.abs() * torch.where(y > 0, torch.full_like(y, 2 * scale), size * (ELEMENTARY + 5 + exponent))
    bend = torch.where(y > 0, torch.zeros_like(y), torch.full_like(y, inner if op.args[4] else size * inner))
    return op.unit * own + max(scale, size) * op.error(0) + times(g * bend, op.error(5)), ELEMENTARY + 5


def _beyond(z: Tensor, threshold: float) -> Tensor:
    """Where a port may keep to the formula that PyTorch leaves: not above a threshold that somebody chose lower."""
    return (z > threshold) & (threshold >= SOFTPLUS_THRESHOLD)


@rule("softplus")
def _softplus(op: Operation) -> tuple[Any, int]:
    """log(1 + exp(beta x)) / beta; above its own threshold PyTorch gives x itself, exp(-beta x) / beta too little."""
    x = op.value(0)
    beta, threshold = float(argument(op, 1, "beta", 1.0)), float(argument(op, 2, "threshold", SOFTPLUS_THRESHOLD))
    own = (ELEMENTARY + 4) * op.unit * (x.abs() + op.output.double().abs() + (1 / abs(beta)))
    left_out = torch.where(_beyond(beta * x, threshold), torch.exp(-beta * x) / beta, torch.zeros_like(x))
    return op.error(0) + own + left_out, ELEMENTARY + 4


@rule("softplus_backward")
def _softplus_backward(op: Operation) -> tuple[Any, int]:
    """Slope z / (1 + z) of z = exp(beta x), or exp(beta x - softplus): a difference rounded relative to |beta x|."""
    g, x, beta, threshold = op.value(0), op.value(1), float(op.args[2]), float(op.args[3])
    z = beta * x
    slope = torch.sigmoid(z)
    own = slope * (2 * ELEMENTARY + 6 + 4 * z.abs())
    left_out = torch.where(_beyond(z, threshold), torch.exp(-z), torch.zeros_like(z))
    error = g.abs() * (op.unit * torch.where(slope > 0, own, torch.zeros_like(own)) + left_out)
    return error + slope * op.error(0) + times(g * beta * slope * (1 - slope), op.error(1)), 2 * ELEMENTARY + 6


@rule("log_sigmoid_backward")
def _log_sigmoid_backward(op: Operation) -> tuple[Any, int]:
    """sigmoid(-x), by any of the ways of `_softplus_backward`."""
    g, x = op.value(0), op.value(1)
    slope = torch.sigmoid(-x)
    own = torch.where(slope > 0, slope * (2 * ELEMENTARY + 6 + 4 * x.abs()), torch.zeros_like(x))
    bend = slope * (1 - slope)
    return op.unit * g.abs() * own + slope * op.error(0) + times(g * bend, op.error(1)), 2 * ELEMENTARY + 6


def _gelu_gradient(op: Operation) -> Formula:
    if op.kwargs.get("approximate", "none") == "tanh":

        def of_tanh(g: Tensor, x: Tensor) -> Tensor:
            x = x.clamp(-_TANH_FLAT, _TANH_FLAT)
            squared = x * x
            t = torch.tanh(_ROOT * (x + _CUBIC * squared * x))
            slope = _ROOT * (1 + 3 * _CUBIC * squared)
            return g * (0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * slope))

        return of_tanh

    def of_erf(g: Tensor, x: Tensor) -> Tensor:
        x = x.clamp(-_FLAT, _FLAT)
        density = _DENSITY * torch.exp(-0.5 * x * x)
        return g * (0.5 * (1 + torch.erf(x * _ROOT_HALF)) + x * density)

    return of_erf


def _silu_gradient(g: Tensor, x: Tensor) -> Tensor:
    x = x.clamp(-_FLAT, _FLAT)
    s = torch.sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


def _mish_gradient(g: Tensor, x: Tensor) -> Tensor:
    x = x.clamp(-_FLAT, _FLAT)
    t = torch.tanh(torch.log1p(torch.exp(x)))
    return g * (t + x * torch.sigmoid(x) * (1 - t * t))


_gelu_formula = formula(_gelu_gradient, 0, 1)


@rule("gelu_backward")
def _gelu_backward(op: Operation) -> tuple[Any, int]:
    """As it costs written out, and by erf what the kernel's own erf may err by."""
    error, depth = _gelu_formula(op)
    if op.kwargs.get("approximate", "none") != "none" or op.unit < _FLOAT32:  # float64's erf errs relative to itself
        return error, depth
    own = error[0] if isinstance(error, list) else error
    return own + 0.5 * op.value(0).abs() * _erf_error(op.value(1) * _ROOT_HALF), depth


def _erf_error(x: Tensor) -> Tensor:
    """What the erf of `_ERF_COEFFICIENTS` may err by in float32, near 0 far more than roundings of erf(x).

    Horner's scheme s <- s t + c with errors e <- e t + |s| error(t) + u |c| + u |s|, the constants rounded and each
    step rounded once, as fused; then its products with t and with exp, whose argument is rounded, and the difference
    from 1.
    """
    inner = _ERF_SCALE * x.abs()
    t = 1 / (1 + inner)
    of_t = t * (2 + inner * t)  # in units of u: the sum and the quotient are rounded, and the scale itself
    total = torch.zeros_like(x) + _ERF_COEFFICIENTS[0]
    error = total.abs()
    for constant in _ERF_COEFFICIENTS[1:]:
        carried = error * t + total.abs() * of_t
        total = total * t + constant
        error = carried + abs(constant) + total.abs()
    density = torch.exp(-x * x)
    of_product = density * (t * error + total.abs() * (of_t + t * (ELEMENTARY + x * x + 1)))
    return _FLOAT32 * (of_product + 1) + _ERF_APART


register_formula("silu_backward", _silu_gradient, 0, 1)
register_formula("mish_backward", _mish_gradient, 0, 1)


def _gated(op: Operation) -> Formula:
    dim = int(argument(op, 1, "dim", -1))

    def written(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim)
        return a * torch.sigmoid(b)

    return written


def _gated_gradient(op: Operation) -> Formula:
    dim = int(op.args[2])

    def written(g: Tensor, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim)
        s = torch.sigmoid(b)
        return torch.cat([g * s, g * a * (s * (1 - s))], dim)

    return written


RULES["glu"], RULES["glu_backward"] = formula(_gated, 0), formula(_gated_gradient, 0, 1)


@rule("tanh_backward", "sigmoid_backward")
def _saturating_backward(op: Operation) -> tuple[Any, int]:
    g, y = op.value(0), op.value(1)
    slope, bend = ((1 - y * y), 2 * y) if op.name == "tanh_backward" else (y * (1 - y), 1 - 2 * y)
    # 1 - y^2 is rounded relative to 1, not to itself.
    own = op.unit * g.abs() * (2 + y.abs()) + op.rounded
    return own + slope.abs() * op.error(0) + (g * bend).abs() * op.error(1), 3


@rule("threshold_backward", "hardtanh_backward", "hardshrink_backward", "softshrink_backward")
def _masked(op: Operation) -> tuple[Any, int]:
    """The gradient where the input let it through; which inputs do is the reference's choice."""
    if 0 not in op.errors:
        return None, 0
    rest = (a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    return op.func(op.errors[0], *rest, **op.kwargs), 0


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(op: Operation) -> tuple[Any, int]:
    """A sixth of the gradient between -3 and 3; PyTorch's kernel holds 1/6 in float32, whatever the tensors' dtype."""
    inside = op.value(1).abs() < 3
    zero = torch.zeros_like(op.value(1))
    own = torch.where(inside, (2 * op.unit + _FLOAT32) * op.value(0).abs() / 6, zero)
    return own + torch.where(inside, zero + op.error(0) / 6, zero), 2


@rule("leaky_relu_backward", "rrelu_with_noise_backward")
def _scaled_gradient(op: Operation) -> tuple[Any, int]:
    """The gradient times a constant, which is rounded itself, or the gradient."""
    rest = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    carried = op.func(op.errors[0], *rest, **op.kwargs).abs() if 0 in op.errors else 0.0
    return carried + 2 * op.rounded, 2


@rule("hardswish_backward")
def _hardswish_backward(op: Operation) -> tuple[Any, int]:
    """Slope x / 3 + 1/2 between -3 and 3."""
    g, x = op.value(0), op.value(1)
    inside = x.abs() <= 3
    own = torch.where(inside, g.abs() * (x.abs() / 3 + 0.5), torch.zeros_like(x))
    bend = torch.where(inside, g.abs() / 3, torch.zeros_like(x))
    return 4 * op.unit * own + 1.5 * op.error(0) + times(bend, op.error(1)), 4


@rule("softshrink")
def _shrunk(op: Operation) -> tuple[Any, int]:
    return op.error(0) + op.rounded, 1


@rule("_prelu_kernel")
def _prelu(op: Operation) -> tuple[Any, int]:
    x, weight = op.value(0), op.value(1)
    below = torch.where(x > 0, torch.zeros_like(x), x.abs())
    steepest = weight.abs().clamp_min(1.0)
    own = torch.where(x > 0, torch.zeros_like(x), op.rounded)
    return own + steepest * op.error(0) + below * op.error(1), 1


@rule("_prelu_kernel_backward")
def _prelu_backward(op: Operation) -> tuple[Any, int]:
    """To the input g, or g weight below 0; to the weight g x below 0, nothing above."""
    g, x, weight = (op.value(i) for i in range(3))
    below = x <= 0
    zero = torch.zeros_like(x)
    slope = torch.where(below, weight.abs().expand(x.shape), torch.ones_like(x))
    own = torch.where(below, op.unit * g.abs() * weight.abs(), zero)
    to_input = own + slope * op.error(0) + torch.where(below, g.abs() * op.error(2), zero)
    to_weight = torch.where(below, op.unit * (g * x).abs() + x.abs() * op.error(0) + g.abs() * op.error(1), zero)
    return [to_input, to_weight], 1
