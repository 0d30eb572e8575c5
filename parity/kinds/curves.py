"""Functions of one value, with their derivatives: what activations are, and what stands in their places."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Change = Callable[[NDArray], NDArray]


class Curve(NamedTuple):
    """A function of one value: in words, computed, and its derivative."""

    words: str
    function: Change
    slope: Change


def _sigmoid(x: NDArray) -> NDArray:
    return np.exp(-np.logaddexp(0, -x))


def _error_function(x: NDArray) -> NDArray:
    return np.vectorize(math.erf, otypes=[float])(x) if x.size else x


def _normal(x: NDArray) -> NDArray:
    """The normal distribution's share below x."""
    return 0.5 * (1 + _error_function(x / math.sqrt(2)))


def _inner(x: NDArray) -> NDArray:
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gelu_tanh_slope(x: NDArray) -> NDArray:
    t = _inner(x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def _swish(x: NDArray, steepness: float) -> NDArray:
    """Slope of x times the sigmoid of `steepness` x."""
    s = _sigmoid(steepness * x)
    return s + steepness * x * s * (1 - s)


def _mish_slope(x: NDArray) -> NDArray:
    t = np.tanh(np.logaddexp(0, x))
    return t + x * (1 - t * t) * _sigmoid(x)


def bent(slope: float) -> Curve:
    """ReLU with a slope below 0."""
    words = f"ReLU with slope {slope:g}"
    return Curve(words, lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope))


def elu(alpha: float, scale: float = 1.0, steepness: float = 1.0) -> Curve:
    """Of scale x above 0, scale alpha (exp(steepness x) - 1) below."""
    words = "ELU" if (alpha, scale, steepness) == (1, 1, 1) else f"ELU with alpha {alpha:g}"
    if (scale, steepness) != (1, 1):
        words += f", scale {scale:g} and exponent {steepness:g} x"
    return Curve(
        words,
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(steepness * np.minimum(x, 0))),
        lambda x: scale * np.where(x > 0, 1.0, alpha * steepness * np.exp(steepness * np.minimum(x, 0))),
    )


def softplus(beta: float, divided: bool = True) -> Curve:
    """Of log(1 + exp(beta x)) / beta, or without the division."""
    words = "softplus" if beta == 1 else f"softplus with beta {beta:g}" + ("" if divided else ", not divided by it")
    by = beta if divided else 1.0
    return Curve(words, lambda x: np.logaddexp(0, beta * x) / by, lambda x: beta / by * _sigmoid(beta * x))


def clipped(low: float, high: float) -> Curve:
    """Of x, kept between two numbers."""
    words = "hard tanh" if (low, high) == (-1, 1) else f"clipping to [{low:g}, {high:g}]"
    return Curve(words, lambda x: np.clip(x, low, high), _within(low, high))


def _within(low: float, high: float, inside: float = 1.0) -> Change:
    return lambda x: np.where((x > low) & (x < high), inside, 0.0)


def _hard_sigmoid(words: str, added: float, divisor: float) -> Curve:
    """Of x with a number added, kept between 0 and 6, and divided."""
    return Curve(words, lambda x: np.clip(x + added, 0, 6) / divisor, _within(-added, 6 - added, 1 / divisor))


def _hard_swish(words: str, added: float, divisor: float) -> Curve:
    """Of x times such a hard sigmoid of it."""
    gate = _hard_sigmoid(words, added, divisor)
    return Curve(words, lambda x: x * gate.function(x), lambda x: gate.function(x) + x * gate.slope(x))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
CURVES = {
    "gelu": Curve(
        "GELU", lambda x: x * _normal(x), lambda x: _normal(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    ),
    "gelu_tanh": Curve("GELU's approximation by tanh", lambda x: 0.5 * x * (1 + _inner(x)), _gelu_tanh_slope),
    "gelu_quick": Curve(
        "GELU's approximation by a sigmoid", lambda x: x * _sigmoid(1.702 * x), lambda x: _swish(x, 1.702)
    ),
    "relu": Curve("ReLU", lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "relu6": Curve("ReLU6", lambda x: np.clip(x, 0, 6), _within(0, 6)),
    "silu": Curve("SiLU", lambda x: x * _sigmoid(x), lambda x: _swish(x, 1.0)),
    "tanh": Curve("tanh", np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": Curve("the sigmoid", _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "leaky_relu": bent(0.01),
    "leaky_relu_fifth": bent(0.2),
    "elu": elu(1.0),
    "selu": elu(_SELU_ALPHA, _SELU_SCALE)._replace(words="SELU"),
    "softplus": softplus(1.0),
    "mish": Curve("mish", lambda x: x * np.tanh(np.logaddexp(0, x)), _mish_slope),
    "hardswish": Curve(
        "hard swish",
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    ),
    "hardsigmoid": _hard_sigmoid("the hard sigmoid", 3, 6),
    "hardsigmoid_keras": Curve(
        "Keras' hard sigmoid (0.2 x + 0.5)", lambda x: np.clip(0.2 * x + 0.5, 0, 1), _within(-2.5, 2.5, 0.2)
    ),
    "hardtanh": clipped(-1, 1),
    "softsign": Curve("softsign", lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "log_sigmoid": Curve("the sigmoid's logarithm", lambda x: -np.logaddexp(0, -x), lambda x: _sigmoid(-x)),
    "tanhshrink": Curve("x - tanh(x)", lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
    "relu_squared": Curve("ReLU's square", lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0)),
    "identity": Curve("nothing", lambda x: x, np.ones_like),
}
# The same with settings that people take for the right ones, by the beginning of a curve's key.
RELATIVES: dict[str, tuple[Curve, ...]] = {
    "leaky_relu": tuple(map(bent, (0.1, 0.3, 0.05, 0.25, 1 / 3, 0.001))),
    "elu": tuple(map(elu, (0.5, 0.1, 2.0))),
    "softplus": (*map(softplus, (0.5, 2.0, 10.0, 100.0)), softplus(2.0, divided=False)),
    "hardtanh": (clipped(0, 1), clipped(-2, 2), clipped(-0.5, 0.5)),
    "hardswish": (
        _hard_swish("hard swish without the 3 (x relu6(x) / 6)", 0, 6),
        _hard_swish("hard swish that isn't divided by 6", 3, 1),
        _hard_swish("hard swish that is divided by 3", 3, 3),
    ),
    "hardsigmoid": (
        _hard_sigmoid("the hard sigmoid without the 3 (relu6(x) / 6)", 0, 6),
        _hard_sigmoid("the hard sigmoid that isn't divided by 6", 3, 1),
        clipped(0, 1)._replace(words="clipping to [0, 1]"),
    ),
}
# What code between layers computes besides, by the name of the ATen operation: no layers, so nothing stands for them.
FUNCTIONS = {
    "exp": Curve("exp", np.exp, np.exp),
    "abs": Curve("abs", np.abs, np.sign),
    "neg": Curve("neg", np.negative, lambda x: -np.ones_like(x)),
}
