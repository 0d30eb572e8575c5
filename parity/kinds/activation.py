"""Activations: functions of one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.curves import CURVES, FUNCTIONS, RELATIVES, Curve, bent, clipped, elu, softplus
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
        yield _instead("relu_missing", "ReLU is left out: negative values pass", lambda x: x)
        text = "negative values pass with slope 0.01"
        yield _instead("relu_leaky", text, lambda x: np.where(x > 0, x, 0.01 * x))
        yield _instead("relu_abs", "negative values change sign", np.abs)
        yield _instead("relu_six", "values are capped at 6", lambda x: np.clip(x, 0, 6))
        yield _instead("relu_tanh", "tanh stands for ReLU", np.tanh)
        for key, other in CURVES.items():
            if key not in ("relu", "relu6", "leaky_relu", "tanh", "identity"):
                yield _instead(f"activation_{key}", f"{other.words} stands for ReLU", other.function)
        for other in RELATIVES["leaky_relu"]:
            yield _instead("relu_leaky", f"{other.words} stands for ReLU", other.function)

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
    """One of `CURVES`, or of a family with other settings.

    Attributes:
        curve: its key; of a family, the family's.
        own: the function, where it is none of `CURVES`.
    """

    curve: str
    own: Curve | None = None

    @property
    def shape(self) -> Curve:
        """The function."""
        return self.own or CURVES[self.curve]

    @property
    def may_be_left_out(self) -> bool:
        """That has words of its own below."""
        return False

    def forward(self) -> NDArray:
        """Value by value."""
        return self.shape.function(self.x)

    def input_gradient(self, g: NDArray) -> NDArray:
        """The slope at each value."""
        return g * self.shape.slope(self.x)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Another function in its place, then the same with other settings."""
        for key, other in {"identity": CURVES["identity"], **CURVES}.items():  # left out is likelier than all else
            if key != self.curve or self.own is not None:
                text = f"{other.words} stands for {self.shape.words}"
                text = f"{self.shape.words} is left out" if key == "identity" else text
                yield _instead(f"activation_{key}", text, other.function)
        for family, members in RELATIVES.items():
            if self.curve.startswith(family):
                for other in members:
                    text = f"{other.words} stands for {self.shape.words}"
                    yield _instead(f"activation_{family}", text, other.function)

    def measured(self, observed: NDArray) -> Iterator[Mistake]:
        """The slope, or the depth, that a function below zero must have had."""
        below = self.x < 0
        if observed.shape != self.x.shape or len(np.unique(self.x[below])) < 2:  # one value fits any slope
            return
        for family, unit, make in (("leaky_relu", self.x, bent), ("elu", np.expm1(np.minimum(self.x, 0)), elu)):
            if self.curve.startswith(family):
                size = float(np.vdot(unit[below], unit[below]))
                number = float(np.vdot(unit[below], observed[below])) / size if size else 0.0
                other = make(number)
                if other.words == self.shape.words:
                    continue
                yield _instead(f"activation_{family}", f"{other.words} stands for {self.shape.words}", other.function)


# PyTorch's class to the curve, where its settings are the usual ones: name of a setting to its value.
_CLASSES: dict[str, tuple[tuple[str, Mapping[str, object]], ...]] = {
    "GELU": (("gelu", {"approximate": "none"}), ("gelu_tanh", {"approximate": "tanh"})),
    "LogSigmoid": (("log_sigmoid", {}),),
    "Softsign": (("softsign", {}),),
    "Tanhshrink": (("tanhshrink", {}),),
    "CELU": (("elu", {"alpha": 1.0}),),
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
    get = recorded.settings.get
    usual = float(get("scale", 1.0)) == float(get("input_scale", 1.0)) == 1
    for curve, wanted in _CLASSES.get(recorded.class_name, ()):
        if usual and all(get(name) == value for name, value in wanted.items()):
            return Activation(x=recorded.x, curve=curve)
    family = _with_settings(recorded.class_name, get)
    return None if family is None else Activation(x=recorded.x, curve=family[0], own=family[1])


def _with_settings(class_name: str, get: Callable[..., Any]) -> tuple[str, Curve] | None:
    """Key and function of a class of several functions with settings that aren't the usual ones."""
    if class_name == "LeakyReLU":
        return "leaky_relu", bent(float(get("negative_slope")))
    if class_name in ("ELU", "CELU"):
        alpha, scale, steepness = (float(get(name, 1.0)) for name in ("alpha", "scale", "input_scale"))
        if (alpha, scale) == (1.6732632423543772, 1.0507009873554805):
            return "selu", CURVES["selu"]
        return "elu", elu(alpha, scale, 1 / alpha if class_name == "CELU" else steepness)
    if class_name == "Softplus":
        return "softplus", softplus(float(get("beta")))
    if class_name == "Hardtanh":
        return "hardtanh", clipped(float(get("min_val")), float(get("max_val")))
    return None


def _numbers(*names: str) -> Callable[[list[Any]], Settings | None]:
    """Settings of these names, in the order in which they are passed; those left out have PyTorch's values."""
    usual = {"negative_slope": 0.01, "beta": 1.0, "min_val": -1.0, "max_val": 1.0}
    usual |= dict.fromkeys(("alpha", "scale", "input_scale"), 1.0)

    def settings(args: list[Any]) -> Settings | None:
        return {name: usual[name] for name in names} | dict(zip(names, args, strict=False))

    return settings


def _limits(args: list[Any]) -> Settings | None:
    """Of a value that is kept between two numbers; None where there is only one."""
    numbers = [a for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    return dict(zip(("min_val", "max_val"), map(float, numbers), strict=True)) if len(numbers) == 2 else None


__all__ = ["CURVES", "FUNCTIONS", "KIND", "Activation", "ReLU"]

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
        "elu": Operation("ELU", "ELU", _numbers("alpha", "scale", "input_scale")),
        "softplus": Operation("softplus", "Softplus", _numbers("beta")),
        "log_sigmoid_forward": Operation("log sigmoid", "LogSigmoid"),
        "mish": Operation("mish", "Mish"),
        "hardswish": Operation("hard swish", "Hardswish"),
        "hardsigmoid": Operation("hard sigmoid", "Hardsigmoid"),
        "hardtanh": Operation("hard tanh", "Hardtanh", _numbers("min_val", "max_val")),
        "clamp": Operation("clipping", "Hardtanh", _limits),
    },
)
