"""Gated recurrent unit, one layer in one direction: see `parity.kinds.recurrence` for its arrays.

r, z = sigmoid(...), n = tanh(W_in x + b_n + r (W_hn h + b_hn)), h' = (1 - z) n + z h: PyTorch's `nn.GRU`, and Flax's
`GRUCell`. That of nnx has no b_hn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, setting
from parity.kinds.recurrence import (
    ACTIVATIONS,
    HN,
    WEIGHTS,
    Recurrence,
    activation_mistakes,
    of_gates,
    recorded_layer,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class GRU(Recurrence):
    """With the state h.

    Attributes:
        gate: function of r and z; likewise candidate, of n.
        candidate: see `gate`.
        reset: `after` the state's product and its bias, `between` the two, or `before` them.
        inverted: whether z is the part of the new state: h' = z n + (1 - z) h.
    """

    gate: str = "sigmoid"
    candidate: str = "tanh"
    reset: str = "after"
    inverted: bool = False

    names = "rzn"

    def gates(self, x: NDArray, h: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """The values of r, z and n, and what r multiplies."""
        of_h, size = self.weights["weight_hh"], self.size
        r, z, n = self.parts_of(x + self.bias)
        gate, offset = ACTIVATIONS[self.gate], self.weights.get(HN, np.zeros(size))
        r, z = gate(r + h @ of_h[:size].T), gate(z + h @ of_h[size : 2 * size].T)
        if self.reset == "before":
            inner = (r * h) @ of_h[2 * size :].T + offset
        else:
            product = h @ of_h[2 * size :].T
            inner = r * (product + offset) if self.reset == "after" else r * product + offset
        return r, z, ACTIVATIONS[self.candidate](n + inner), h @ of_h[2 * size :].T + offset

    def step(self, x: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        """See the module's text."""
        (h,) = state
        _, z, n, _ = self.gates(x, h)
        return (z * n + (1 - z) * h if self.inverted else (1 - z) * n + z * h,)

    def backward(self, g: NDArray, through: bool = True) -> dict[str, NDArray]:
        """See `Recurrence.backward`."""
        states, xs, of_h = self.states(), self.projected(), np.zeros_like(self.state[0])
        inputs: list[NDArray] = []
        recurrent: list[NDArray] = []
        for t in reversed(range(len(xs))):
            (h,) = states[t]
            r, z, n, inner = self.gates(xs[t], h)
            of_h = of_h + g[t]
            of_n, of_z = of_h * (1 - z) * (1 - n**2), of_h * (h - n) * z * (1 - z)
            of_r = of_n * inner * r * (1 - r)
            inputs.insert(0, np.concatenate([of_r, of_z, of_n], -1))
            recurrent.insert(0, np.concatenate([of_r, of_z, of_n * r], -1))
            of_h = of_h * z + recurrent[0] @ self.weights["weight_hh"] if through else np.zeros_like(of_h)
        found = self.joined(inputs, recurrent, states)
        return found | {HN: np.stack(recurrent).sum((0, 1))[2 * self.size :]}

    def gate_mistakes(self) -> Iterator[Mistake]:
        """The reset gate's place, the update gate's sense, and other functions."""
        text = "the reset gate multiplies the state before the product, n = tanh(... + W_hn (r h) + b_hn)"
        yield setting("reset_before", text, reset="before")
        text = "b_hn is outside of the reset gate, n = tanh(... + r (W_hn h) + b_hn)"
        yield setting("bias_hn_outside", text, reset="between")
        text = "there is no b_hn, the bias that the reset gate multiplies (nnx's GRUCell has none)"
        yield Mistake("bias_hn_missing", text, lambda p: p.without(HN))
        text = "the update gate z is exchanged with 1 - z: h' = z n + (1 - z) h"
        yield setting("update_inverted", text, inverted=True)
        yield from activation_mistakes(
            "candidate", self.candidate, "n", ("sigmoid", "relu", "no function", "hard_tanh")
        )
        yield from activation_mistakes(
            "gate", self.gate, "r and z", ("hard_sigmoid", "Keras's hard_sigmoid", "tanh", "relu")
        )

    def biases(self, *kept: str) -> dict[str, NDArray]:
        """The part of n stays apart."""
        zero = np.zeros(3 * self.size)
        of_x, of_h = (self.parts[name] if name in kept else zero for name in ("bias_ih", "bias_hh"))
        summed = np.concatenate([(of_x + of_h)[: 2 * self.size], of_x[2 * self.size :]])
        return {"bias": summed, HN: of_h[2 * self.size :]}


def _layer(recorded: Recorded) -> Layer | None:
    return recorded_layer(GRU, recorded) if len(recorded.more) == 1 else None


KIND = Kind(
    name="gru",
    own_classes=("GRURecurrence",),
    weights=(*WEIGHTS, Weight(HN, HN)),
    in_torch=lambda shapes: of_gates(shapes, "weight", 3),
    in_flax=lambda class_name, shapes: of_gates(shapes, "kernel", 3),
    recurrent=True,
    layer=_layer,
)
