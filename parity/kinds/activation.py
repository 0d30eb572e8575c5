"""Activations: functions of one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Change, Function, Layer, Mistake, Recorded, Settings, WrongGradient


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Layer):
    """max(x, 0)."""

    @property
    def may_be_left_out(self) -> bool:
        """That has a name of its own below."""
        return False

    @property
    def may_get_a_relu(self) -> bool:
        """A second one changes nothing."""
        return False

    def forward(self) -> NDArray:
        """Positive values."""
        return np.maximum(self.x, 0)

    def input_gradient(self, g: NDArray) -> NDArray:
        """Where the input is positive; at 0 none, as both frameworks have it."""
        return np.where(self.x > 0, g, 0.0)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Other functions in its place."""
        yield _instead("relu_missing", "negative values pass", lambda x: x)
        text = "negative values pass with slope 0.01"
        yield _instead("relu_leaky", text, lambda x: np.where(x > 0, x, 0.01 * x))
        yield _instead("relu_abs", "negative values change sign", np.abs)
        yield _instead("relu_six", "values are capped at 6", lambda x: np.clip(x, 0, 6))
        yield _instead("relu_tanh", "tanh stands for ReLU", np.tanh)

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """At the kink, and below it."""
        x = self.x
        yield WrongGradient("gradient_kink", "zero passes the gradient", np.where(x >= 0, g, 0.0))
        halved = np.where(x > 0, g, np.where(x == 0, g / 2, 0.0))
        text = "zero passes half of the gradient, as a maximum of x and 0 does"
        yield WrongGradient("gradient_kink", text, halved)
        yield WrongGradient("gradient_mask", "negative values pass the gradient", g)


def _instead(key: str, text: str, function: Change) -> Mistake:
    return Mistake(key, text, lambda p: Function.of(p, function))


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Layer):
    """One of `CURVES`.

    Attributes:
        curve: its key.
    """

    curve: str

    @property
    def may_be_left_out(self) -> bool:
        """That has words of its own below."""
        return False

    def forward(self) -> NDArray:
        """Value by value."""
        return CURVES[self.curve].function(self.x)

    def input_gradient(self, g: NDArray) -> NDArray:
        """The slope at each value."""
        return g * CURVES[self.curve].slope(self.x)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Another function in its place."""
        for key, other in CURVES.items():
            if key != self.curve:
                text = f"{other.words} stands for {CURVES[self.curve].words}"
                yield _instead(f"activation_{key}", text, other.function)


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


def _bent(slope: float) -> Curve:
    words = f"ReLU with slope {slope:g}"
    return Curve(words, lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope))


def _within(low: float, high: float, inside: float = 1.0) -> Change:
    return lambda x: np.where((x > low) & (x < high), inside, 0.0)


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
    "leaky_relu": _bent(0.01),
    "leaky_relu_fifth": _bent(0.2),
    "elu": Curve("ELU", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda x: np.exp(np.minimum(x, 0))),
    "selu": Curve(
        "SELU",
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: _SELU_SCALE * np.where(x > 0, 1.0, _SELU_ALPHA * np.exp(np.minimum(x, 0))),
    ),
    "softplus": Curve("softplus", lambda x: np.logaddexp(0, x), _sigmoid),
    "mish": Curve("mish", lambda x: x * np.tanh(np.logaddexp(0, x)), _mish_slope),
    "hardswish": Curve(
        "hard swish",
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    ),
    "hardsigmoid": Curve("the hard sigmoid", lambda x: np.clip(x + 3, 0, 6) / 6, _within(-3, 3, 1 / 6)),
    "hardtanh": Curve("hard tanh", lambda x: np.clip(x, -1, 1), _within(-1, 1)),
    "identity": Curve("nothing", lambda x: x, np.ones_like),
}
# What code between layers computes besides, by the name of the ATen operation: no layers, so nothing stands for them.
FUNCTIONS = {
    "exp": Curve("exp", np.exp, np.exp),
    "abs": Curve("abs", np.abs, np.sign),
    "neg": Curve("neg", np.negative, lambda x: -np.ones_like(x)),
}
# PyTorch's class to the curve, where its settings are the usual ones: name of a setting to its value.
_CLASSES: dict[str, tuple[tuple[str, Mapping[str, object]], ...]] = {
    "GELU": (("gelu", {"approximate": "none"}), ("gelu_tanh", {"approximate": "tanh"})),
    "ReLU6": (("relu6", {}),),
    "SiLU": (("silu", {}),),
    "Tanh": (("tanh", {}),),
    "Sigmoid": (("sigmoid", {}),),
    "LeakyReLU": (("leaky_relu", {"negative_slope": 0.01}), ("leaky_relu_fifth", {"negative_slope": 0.2})),
    "ELU": (("elu", {"alpha": 1.0}),),
    "SELU": (("selu", {}),),
    "Softplus": (("softplus", {"beta": 1.0}),),
    "Mish": (("mish", {}),),
    "Hardswish": (("hardswish", {}),),
    "Hardsigmoid": (("hardsigmoid", {}),),
    "Hardtanh": (("hardtanh", {"min_val": -1.0, "max_val": 1.0}), ("relu6", {"min_val": 0.0, "max_val": 6.0})),
}


def _layer(recorded: Recorded) -> Layer | None:
    if recorded.class_name == "ReLU":
        return ReLU(x=recorded.x)
    for curve, wanted in _CLASSES.get(recorded.class_name, ()):
        if all(recorded.settings.get(name) == value for name, value in wanted.items()):
            return Activation(x=recorded.x, curve=curve)
    return None


def _numbers(*names: str) -> Callable[[list[Any]], Settings | None]:
    """Settings of these names, in the order in which they are passed; those left out have PyTorch's values."""
    usual = {"negative_slope": 0.01, "alpha": 1.0, "beta": 1.0, "min_val": -1.0, "max_val": 1.0}

    def settings(args: list[Any]) -> Settings | None:
        return {name: usual[name] for name in names} | dict(zip(names, args, strict=False))

    return settings


KIND = Kind(
    name="activation",
    torch_classes=("activation.ReLU", *(f"activation.{name}" for name in _CLASSES)),
    layer=_layer,
    operations={
        "relu": Operation("ReLU", "ReLU"),
        "gelu": Operation("GELU", "GELU", lambda args: {"approximate": args[0] if args else "none"}),
        "silu": Operation("SiLU", "SiLU"),
        "tanh": Operation("tanh", "Tanh"),
        "sigmoid": Operation("sigmoid", "Sigmoid"),
        "leaky_relu": Operation("leaky ReLU", "LeakyReLU", _numbers("negative_slope")),
        "elu": Operation("ELU", "ELU", _numbers("alpha")),
        "softplus": Operation("softplus", "Softplus", _numbers("beta")),
        "mish": Operation("mish", "Mish"),
        "hardswish": Operation("hard swish", "Hardswish"),
        "hardsigmoid": Operation("hard sigmoid", "Hardsigmoid"),
        "hardtanh": Operation("hard tanh", "Hardtanh", _numbers("min_val", "max_val")),
    },
)
