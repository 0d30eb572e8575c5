"""Activations: functions of one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Change, Function, Layer, Mistake, Recorded, WrongGradient


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


@dataclass(frozen=True)
class Elementwise:
    """A function of one value, where code between layers calls it.

    Attributes:
        value: of the function.
        slope: its derivative, from the input and the value.
    """

    value: Change
    slope: Callable[[NDArray, NDArray], NDArray]


# By the name of the ATen operation.
FUNCTIONS = {
    "tanh": Elementwise(np.tanh, lambda x, y: 1 - y * y),
    "sigmoid": Elementwise(lambda x: 1 / (1 + np.exp(-x)), lambda x, y: y * (1 - y)),
    "exp": Elementwise(np.exp, lambda x, y: y),
    "abs": Elementwise(np.abs, lambda x, y: np.sign(x)),
    "neg": Elementwise(np.negative, lambda x, y: -np.ones_like(x)),
}


def _layer(recorded: Recorded) -> Layer | None:
    return ReLU(x=recorded.x)


KIND = Kind(
    name="activation",
    torch_classes=("activation.ReLU",),
    layer=_layer,
    operations={"relu": Operation("ReLU", "ReLU")},
)
