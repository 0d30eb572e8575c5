"""Softmax, its logarithm, and gated linear units: functions of several values along one axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.activation import CURVES
from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Function, Layer, Mistake, Recorded, Settings, setting


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along an axis, or its logarithm.

    Attributes:
        axis: along which values add up to 1.
        logarithm: whether it is taken.
    """

    axis: int
    logarithm: bool = False

    @property
    def mixes_examples(self) -> bool:
        """Along the first axis."""
        return self.axis % self.x.ndim == 0

    @property
    def may_get_a_relu(self) -> bool:
        """Shares aren't negative."""
        return self.logarithm

    def forward(self) -> NDArray:
        """Shares, or their logarithms."""
        x = self.x - self.x.max(self.axis, keepdims=True)
        total = np.exp(x).sum(self.axis, keepdims=True)
        return x - np.log(total) if self.logarithm else np.exp(x) / total

    def input_gradient(self, g: NDArray) -> NDArray:
        """What a value gains the others lose."""
        y = self.forward()
        if self.logarithm:
            return g - np.exp(y) * g.sum(self.axis, keepdims=True)
        return y * (g - (g * y).sum(self.axis, keepdims=True))

    def own_mistakes(self) -> Iterator[Mistake]:
        """The axis, the logarithm, a sigmoid for each value."""
        own = self.axis % self.x.ndim
        for axis in range(self.x.ndim):
            if axis != own:
                yield setting("softmax_axis", f"softmax runs over axis {axis}, not {own}", axis=axis)
        words = ("softmax", "its logarithm")
        text = f"{words[not self.logarithm]} stands for {words[self.logarithm]}"
        yield setting("softmax_logarithm", text, logarithm=not self.logarithm)
        for key in ("sigmoid", "tanh", "relu"):
            curve = CURVES[key]
            text = f"{curve.words} stands for softmax"
            yield Mistake(f"activation_{key}", text, lambda p, f=curve.function: Function.of(p, f))


@dataclass(frozen=True, kw_only=True, eq=False)
class Gated(Layer):
    """Halves along an axis: one times the sigmoid of the other.

    Attributes:
        axis: that is halved.
        exchanged: whether the first half is the gate.
        curve: of the gate, a key of `CURVES`.
    """

    axis: int
    exchanged: bool = False
    curve: str = "sigmoid"

    @property
    def may_be_left_out(self) -> bool:
        """The result has half as many values."""
        return False

    def forward(self) -> NDArray:
        """Their product."""
        values, gate = np.split(self.x, 2, self.axis)
        if self.exchanged:
            values, gate = gate, values
        return values * CURVES[self.curve].function(gate)

    def input_gradient(self, g: NDArray) -> NDArray:
        """To either half."""
        values, gate = np.split(self.x, 2, self.axis)
        curve = CURVES[self.curve]
        return np.concatenate([g * curve.function(gate), g * values * curve.slope(gate)], self.axis)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Which half is the gate, its function, the axis."""
        yield setting("gate_exchanged", "the halves are exchanged: the first one is the gate", exchanged=True)
        for key in ("tanh", "relu", "silu", "gelu", "hardsigmoid", "identity"):
            yield setting("gate_function", f"{CURVES[key].words} stands for the gate's sigmoid", curve=key)
        own = self.axis % self.x.ndim
        for axis in range(self.x.ndim):
            if axis != own:
                yield setting("gate_axis", f"axis {axis} is halved, not {own}", axis=axis)


def _layer(recorded: Recorded) -> Layer | None:
    x, name = recorded.x, recorded.class_name
    axis = recorded.settings.get("dim")
    if not isinstance(axis, int):
        axis = -1 if name == "GLU" else 0 if x.ndim in (0, 1, 3) else 1  # what PyTorch guesses
    if not -x.ndim <= axis < x.ndim:
        return None
    return Gated(x=x, axis=axis) if name == "GLU" else Softmax(x=x, axis=axis, logarithm=name == "LogSoftmax")


def _axis(args: list[Any]) -> Settings | None:
    return {"dim": next((a for a in args if isinstance(a, int) and not isinstance(a, bool)), -1)}


def _operations(class_name: str, title: str, *names: str) -> dict[str, Operation]:
    return {name: Operation(title, class_name, _axis) for name in names}


KIND = Kind(
    name="softmax",
    torch_classes=("activation.Softmax", "activation.LogSoftmax", "activation.GLU"),
    layer=_layer,
    operations=_operations("Softmax", "softmax", "_softmax", "softmax")
    | _operations("LogSoftmax", "log softmax", "_log_softmax", "log_softmax")
    | _operations("GLU", "GLU", "glu"),
)
