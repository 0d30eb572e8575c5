"""Long short-term memory, one layer in one direction: see `parity.kinds.recurrence` for its arrays.

i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c'): PyTorch's `nn.LSTM`, and Flax's `LSTMCell`.
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
class LSTM(Recurrence):
    """With states h and c.

    Attributes:
        gate: function of i, f and o; likewise candidate, of g, and output, of c in h = o output(c).
        candidate: see `gate`.
        output: see `gate`.
        forget_bias: added to the argument of f.
        coupled: whether f is 1 - i.
    """

    gate: str = "sigmoid"
    candidate: str = "tanh"
    output: str = "tanh"
    forget_bias: float = 0.0
    coupled: bool = False

    names = "ifgo"

    def gates(self, x: NDArray, h: NDArray) -> list[NDArray]:
        """The values of i, f, g and o."""
        i, f, g, o = self.parts_of(x + h @ self.weights["weight_hh"].T + self.bias)
        gate = ACTIVATIONS[self.gate]
        i, f, o = gate(i), gate(f + self.forget_bias), gate(o)
        return [i, 1 - i if self.coupled else f, ACTIVATIONS[self.candidate](g), o]

    def step(self, x: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        """See the module's text."""
        h, c = state
        i, f, g, o = self.gates(x, h)
        c = f * c + i * g
        return o * ACTIVATIONS[self.output](c), c

    def backward(self, g: NDArray, through: bool = True) -> dict[str, NDArray]:
        """See `Recurrence.backward`."""
        states, xs = self.states(), self.projected()
        of_h, of_c = np.zeros_like(self.state[0]), g[-1].copy()
        found: list[NDArray] = []
        for t in reversed(range(len(xs))):
            (h, c), (_, c_next) = states[t], states[t + 1]
            i, f, n, o = self.gates(xs[t], h)
            of_h, squashed = of_h + g[t], np.tanh(c_next)
            of_c = of_c + of_h * o * (1 - squashed**2)
            of_i, of_f, of_n, of_o = of_c * n, of_c * c, of_c * i, of_h * squashed
            parts = of_i * i * (1 - i), of_f * f * (1 - f), of_n * (1 - n**2), of_o * o * (1 - o)
            found.insert(0, np.concatenate(parts, -1))
            of_h = found[0] @ self.weights["weight_hh"] if through else np.zeros_like(of_h)
            of_c = of_c * f if through else np.zeros_like(of_c)
        return self.joined(found, found, states)

    def gate_mistakes(self) -> Iterator[Mistake]:
        """The forget gate, and other functions."""
        text = "1 is added to the forget gate's argument"
        yield Mistake("forget_bias", text, _forgetting_less)
        yield setting("coupled", "the forget gate is 1 - i", coupled=True)
        others = "sigmoid", "relu", "no function", "hard_tanh"
        yield from activation_mistakes("candidate", self.candidate, "g", others)
        yield from activation_mistakes("output", self.output, "c before it becomes h", others)
        yield from activation_mistakes(
            "gate", self.gate, "i, f and o", ("hard_sigmoid", "Keras's hard_sigmoid", "tanh", "relu")
        )


def _forgetting_less(p: Layer) -> Layer | None:
    """Through the bias, where there is one: there it shows in the weights, too."""
    if not isinstance(p, LSTM):
        return None
    if "bias" not in p.weights:
        return p.changed(forget_bias=1.0)
    added = np.zeros_like(p.weights["bias"])
    added[p.size : 2 * p.size] = 1
    return p.with_weights(bias=p.weights["bias"] + added)


def _layer(recorded: Recorded) -> Layer | None:
    return recorded_layer(LSTM, recorded) if len(recorded.more) == 2 else None


KIND = Kind(
    name="lstm",
    own_classes=("LSTMRecurrence",),
    weights=WEIGHTS,
    in_torch=lambda shapes: of_gates(shapes, "weight", 4),
    in_flax=lambda class_name, shapes: of_gates(shapes, "kernel", 4),
    recurrent=True,
    layer=_layer,
)
