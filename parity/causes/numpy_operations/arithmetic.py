"""PyTorch's arithmetic, comparisons and functions of one value, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations.table import OPERATIONS, Arguments, operation
from parity.kinds.activation import CURVES, FUNCTIONS


def _alpha(a: Arguments) -> Any:
    other = a["other"]
    return other if a.get("alpha", 1) == 1 else a["alpha"] * other


@operation("div")
def _div(a: Arguments) -> NDArray:
    quotient = np.true_divide(a["self"], a["other"])
    rounding = {"floor": np.floor, "trunc": np.trunc, None: lambda x: x}[a.get("rounding_mode")]
    return rounding(quotient)


@operation("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(a: Arguments) -> NDArray:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    return np.clip(a["self"], -np.inf if low is None else low, np.inf if high is None else high)


def _curve(name: str) -> Callable[[Arguments], NDArray]:
    return lambda a: CURVES[name].function(a["self"])


OPERATIONS |= {name: _curve(name) for name in ("relu", "relu6", "silu", "tanh", "sigmoid", "mish", "selu")}
OPERATIONS |= {name: _curve(name) for name in ("hardswish", "hardsigmoid", "softsign", "tanhshrink")}
OPERATIONS |= {
    name: (lambda function: lambda a: function(a["self"]))(each.function) for name, each in FUNCTIONS.items()
}
OPERATIONS["gelu"] = lambda a: CURVES["gelu_tanh" if a.get("approximate") == "tanh" else "gelu"].function(a["self"])
OPERATIONS["leaky_relu"] = lambda a: np.where(a["self"] > 0, a["self"], a.get("negative_slope", 0.01) * a["self"])
OPERATIONS["erf"] = lambda a: np.vectorize(math.erf, otypes=[float])(a["self"])


@operation("elu")
def _elu(a: Arguments) -> NDArray:
    x, alpha, scale, inner = a["self"], a.get("alpha", 1), a.get("scale", 1), a.get("input_scale", 1)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) * inner))


@operation("softplus")
def _softplus(a: Arguments) -> NDArray:
    x, beta, threshold = a["self"], a.get("beta", 1), a.get("threshold", 20)
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


@operation("log_sigmoid_forward")
def _log_sigmoid(a: Arguments) -> list[NDArray]:
    return [-np.logaddexp(0, -a["self"]), np.zeros(0)]


for _name, _function in {
    "add": lambda a: a["self"] + _alpha(a),
    "sub": lambda a: a["self"] - _alpha(a),
    "rsub": lambda a: a["other"] - (a["self"] if a.get("alpha", 1) == 1 else a["alpha"] * a["self"]),
    "mul": lambda a: a["self"] * a["other"],
    "pow": lambda a: np.power(np.asarray(a["self"], np.float64), a["exponent"]),
    "addcmul": lambda a: a["self"] + a.get("value", 1) * a["tensor1"] * a["tensor2"],
    "addcdiv": lambda a: a["self"] + a.get("value", 1) * a["tensor1"] / a["tensor2"],
    "lerp": lambda a: a["self"] + a["weight"] * (a["end"] - a["self"]),
    "maximum": lambda a: np.maximum(a["self"], a["other"]),
    "minimum": lambda a: np.minimum(a["self"], a["other"]),
    "floor_divide": lambda a: np.floor_divide(a["self"], a["other"]),
    "remainder": lambda a: np.mod(a["self"], a["other"]),
    "atan2": lambda a: np.arctan2(a["self"], a["other"]),
    "eq": lambda a: a["self"] == a["other"],
    "ne": lambda a: a["self"] != a["other"],
    "lt": lambda a: a["self"] < a["other"],
    "le": lambda a: a["self"] <= a["other"],
    "gt": lambda a: a["self"] > a["other"],
    "ge": lambda a: a["self"] >= a["other"],
    "logical_and": lambda a: np.logical_and(a["self"], a["other"]),
    "logical_or": lambda a: np.logical_or(a["self"], a["other"]),
    "logical_not": lambda a: np.logical_not(a["self"]),
    "bitwise_and": lambda a: np.bitwise_and(a["self"], a["other"]),
    "bitwise_or": lambda a: np.bitwise_or(a["self"], a["other"]),
    "bitwise_not": lambda a: np.bitwise_not(a["self"]),
    "logical_xor": lambda a: np.logical_xor(a["self"], a["other"]),
    "fmod": lambda a: np.fmod(a["self"], a["other"]),
    "frac": lambda a: a["self"] - np.trunc(a["self"]),
    "hypot": lambda a: np.hypot(a["self"], a["other"]),
    "_prelu_kernel": lambda a: np.where(a["self"] > 0, a["self"], a["weight"] * a["self"]),
    "threshold": lambda a: np.where(a["self"] > a["threshold"], a["self"], a["value"]),
    "logaddexp": lambda a: np.logaddexp(a["self"], a["other"]),
    "rsqrt": lambda a: 1 / np.sqrt(a["self"]),
}.items():
    OPERATIONS[_name] = _function
for _name, _ufunc in {
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "square": np.square,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "exp2": np.exp2,
    "asin": np.arcsin,
    "acos": np.arccos,
    "trunc": np.trunc,
    "log10": np.log10,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sgn": np.sign,
}.items():
    OPERATIONS[_name] = (lambda ufunc: lambda a: ufunc(np.asarray(a["self"], np.float64)))(_ufunc)
OPERATIONS["isfinite"] = lambda a: np.isfinite(a["self"])
OPERATIONS["isnan"], OPERATIONS["isinf"] = (lambda a: np.isnan(a["self"])), (lambda a: np.isinf(a["self"]))


@operation("nan_to_num")
def _finite(a: Arguments) -> NDArray:
    nan, high, low = a.get("nan"), a.get("posinf"), a.get("neginf")
    return np.nan_to_num(a["self"], nan=0.0 if nan is None else nan, posinf=high, neginf=low)


# Complex numbers.
OPERATIONS |= {
    "view_as_complex": lambda a: a["self"][..., 0] + 1j * a["self"][..., 1],
    "view_as_real": lambda a: np.stack([a["self"].real, a["self"].imag], -1),
    "complex": lambda a: a["real"] + 1j * a["imag"],
    "polar": lambda a: a["abs"] * np.exp(1j * a["angle"]),
    "_conj": lambda a: np.conj(a["self"]),
    "conj": lambda a: np.conj(a["self"]),
    "resolve_conj": lambda a: a["self"],
    "real": lambda a: np.real(a["self"]),
    "imag": lambda a: np.imag(a["self"]),
    "angle": lambda a: np.angle(a["self"]),
}
