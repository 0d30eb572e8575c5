"""Elman's recurrent layer, one layer in one direction: see `parity.kinds.recurrence` for its arrays.

h' = tanh(W_ih x + W_hh h + b), or with ReLU: PyTorch's `nn.RNN`, and Flax's `SimpleCell`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind
from parity.kinds.layer import Layer, Mistake, Recorded, setting
from parity.kinds.recurrence import (
    ACTIVATIONS,
    WEIGHTS,
    Recurrence,
    activation_mistakes,
    of_gates,
    recorded_layer,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SimpleRecurrence(Recurrence):
    """With the state h.

    Attributes:
        nonlinearity: name of the function.
        residual: whether the state itself is added to the function's argument.
    """

    nonlinearity: str = "tanh"
    residual: bool = False

    names = "h"

    def step(self, x: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        """See the module's text."""
        (h,) = state
        argument = x + h @ self.weights["weight_hh"].T + self.bias
        return (ACTIVATIONS[self.nonlinearity](argument + h if self.residual else argument),)

    def backward(self, g: NDArray, through: bool = True) -> dict[str, NDArray]:
        """See `Recurrence.backward`."""
        states, of_h = self.states(), np.zeros_like(self.state[0])
        found: list[NDArray] = []
        for t in reversed(range(len(self.x))):
            (h,) = states[t + 1]
            slope = (h > 0).astype(h.dtype) if self.nonlinearity == "relu" else 1 - h**2
            found.insert(0, (of_h + g[t]) * slope)
            of_h = found[0] @ self.weights["weight_hh"] if through else np.zeros_like(of_h)
        return self.joined(found, found, states)

    def gate_mistakes(self) -> Iterator[Mistake]:
        """Another function, the residual connection."""
        others = "tanh", "relu", "sigmoid", "no function", "hard_tanh"
        yield from activation_mistakes("nonlinearity", self.nonlinearity, "the sum", others)
        yield setting("residual", "the state is added to the function's argument (residual=True)", residual=True)


def _layer(recorded: Recorded) -> Layer | None:
    if len(recorded.more) != 1:
        return None
    return recorded_layer(SimpleRecurrence, recorded, nonlinearity=recorded.settings.get("nonlinearity", "tanh"))


KIND = Kind(
    name="simple_recurrence",
    own_classes=("ElmanRecurrence",),
    weights=WEIGHTS,
    in_torch=lambda shapes: of_gates(shapes, "weight", 1),
    in_flax=lambda class_name, shapes: of_gates(shapes, "kernel", 1),
    recurrent=True,
    layer=_layer,
)
