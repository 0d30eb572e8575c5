"""What the kinds of recurrent layers share: one layer in one direction, and how such layers go wrong.

A stock layer of PyTorch's or Flax's is taken apart into these, so that both sides have the same arrays:

| array | shape |
| --- | --- |
| x, the sequence in the order in which it is processed | T N inputs |
| the initial state, one array or two (LSTM: h, then c) | N H |
| result: h after each step, and behind it what else the state holds in the end (LSTM: c) | T N H, LSTM T + 1 N H |
| weight_ih, weight_hh | gates * H inputs, gates * H H |
| bias: of PyTorch's two their sum, but for what a GRU multiplies by its reset gate, `bias_hn` | gates * H |

The gates lie as in PyTorch: i, f, g, o of an LSTM, r, z, n of a GRU.
"""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import BIAS, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, WrongGradient, setting
from parity.kinds.layouts import Layout

HN = "bias_hn"
PACKED = ("kernel_ih", "kernel_hh", "bias", HN)  # the arrays that every layer has in a comparison, in Flax's layout


def _transposed(array: NDArray, layout: Layout | None) -> NDArray:
    return array.T


WEIGHTS = (
    Weight("weight_ih", "kernel_ih", to_flax=_transposed, to_torch=_transposed),
    Weight("weight_hh", "kernel_hh", to_flax=_transposed, to_torch=_transposed),
    BIAS,
)


def sigmoid(x: NDArray) -> NDArray:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ACTIVATIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "Keras's hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "no function": lambda x: x,
}


def of_gates(shapes: Shapes, kernel: str, gates: int) -> bool:
    """Whether a layer with weights of these shapes has so many gates; `kernel` is `weight` or `kernel`."""
    inputs, states = shapes.get(f"{kernel}_ih", ()), shapes.get(f"{kernel}_hh", ())
    if len(inputs) != 2 or len(states) != 2:
        return False
    outputs, size = (states[0], states[1]) if kernel == "weight" else (states[1], states[0])
    return outputs == gates * size and outputs == inputs[0 if kernel == "weight" else 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recurrence(Layer):
    """One recurrent layer in one direction.

    Attributes:
        state: the initial one, arrays of N H.
        parts: b_ih and b_hh, where PyTorch's layer has them.
        carried: whether a step's state goes on to the next.
    """

    state: tuple[NDArray, ...]
    parts: Mapping[str, NDArray]
    carried: bool = True

    names: ClassVar[str] = ""
    """Letters of the gates, in PyTorch's order."""
    mistaken_biases = True

    @abstractmethod
    def step(self, x: NDArray, state: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        """The state after one step of the input's projection x, N gates * H."""

    @abstractmethod
    def backward(self, g: NDArray, through: bool = True) -> dict[str, NDArray]:
        """Gradients of x (`x`) and of the weights, from the result's; `through` the states, or within steps alone."""

    @property
    def size(self) -> int:
        """H."""
        return self.weights["weight_hh"].shape[1]

    @property
    def bias(self) -> NDArray | float:
        """The bias, or zero."""
        return self.weights.get("bias", 0.0)

    def projected(self) -> NDArray:
        """All steps' inputs times their weights, without the bias."""
        return self.x @ self.weights["weight_ih"].T

    def forward(self) -> NDArray:
        """Step by step."""
        return self.packed(self.states())

    def states(self) -> list[tuple[NDArray, ...]]:
        """The initial state, and that after each step."""
        found = [self.state]
        for x in self.projected():
            found.append(self.step(x, found[-1] if self.carried else self.state))
        return found

    def packed(self, states: list[tuple[NDArray, ...]]) -> NDArray:
        """The result."""
        return np.stack([*(state[0] for state in states[1:]), *states[-1][1:]])

    def parts_of(self, gates: NDArray) -> list[NDArray]:
        """N gates * H as one array for each gate."""
        return np.split(gates, len(self.names), axis=-1)

    def input_gradient(self, g: NDArray) -> NDArray:
        """Back through time."""
        return self.backward(g)["x"]

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Back through time."""
        return self.backward(g).get(name)

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """A state that is cut off."""
        text = "nothing flows back from a step to the one before it (the state is detached)"
        yield WrongGradient("state_detached", text, self.backward(g, through=False)["x"])

    def joined(self, of_gates: list[NDArray], of_states: list[NDArray], states: list[tuple[NDArray, ...]]) -> dict:
        """Gradients of x and of the weights from those of the gates at each step, oldest first.

        Args:
            of_gates: with respect to the input's part of the gates' arguments; likewise of_states, the state's part.
            of_states: see `of_gates`.
            states: as `states` gives them.
        """
        inputs, recurrent = np.stack(of_gates), np.stack(of_states)
        before = np.stack([state[0] for state in states[:-1]])
        return {
            "x": inputs @ self.weights["weight_ih"],
            "weight_ih": np.einsum("tng,tni->gi", inputs, self.x),
            "weight_hh": np.einsum("tng,tnh->gh", recurrent, before),
            "bias": inputs.sum((0, 1)),
        }

    @property
    def may_be_left_out(self) -> bool:
        """It changes shapes."""
        return False

    @property
    def may_get_a_relu(self) -> bool:
        """The mistake has the name of another nonlinearity here."""
        return False

    @property
    def mixes_examples(self) -> bool:
        """The first axis are the steps."""
        return True

    def own_mistakes(self) -> Iterator[Mistake]:
        """The order of the gates first, then the kind's own, biases, the weights, the way through time."""
        for order in itertools.permutations(range(len(self.names))):
            if list(order) != sorted(order):
                ours, theirs = (", ".join(self.names[i] for i in each) for each in (order, range(len(order))))
                text = f"the gates lie in the order {ours}, not {theirs}"
                yield Mistake("gate_order", text, lambda p, order=order: _reordered(p, order))
        yield from self.gate_mistakes()
        yield from self._bias_mistakes()
        yield Mistake("weights_exchanged", "the input's and the state's weights are exchanged", _exchanged)
        for name, of in (("weight_hh", "state's"), ("weight_ih", "input's")):
            text = f"the {of} square kernels are not transposed"
            yield Mistake("kernel_transposed", text, lambda p, name=name: _each_transposed(p, name))
        yield setting("state_dropped", "every step starts from the initial state", carried=False)
        text = "the initial state is not used"
        yield Mistake("state_ignored", text, lambda p: replace(p, state=tuple(np.zeros_like(s) for s in p.state)))
        if len(self.state) > 1:
            yield Mistake("state_exchanged", "h and c are exchanged", lambda p: replace(p, state=p.state[::-1]))
        text = "the sequence is processed from the last step to the first"
        yield Mistake("direction", text, lambda p: replace(p, x=p.x[::-1], after=(*p.after, self._turned)))
        yield Mistake("order_reversed", "the results come in reverse order", lambda p: _then(p, self._turned))

    def _turned(self, y: NDArray) -> NDArray:
        steps = len(self.x)
        return np.concatenate([y[:steps][::-1], y[steps:]])

    def gate_mistakes(self) -> Iterator[Mistake]:
        """What else people get wrong in this kind's gates."""
        yield from ()

    def _bias_mistakes(self) -> Iterator[Mistake]:
        if "bias" not in self.weights:
            return
        for left, kept in (("bias_hh", "bias_ih"), ("bias_ih", "bias_hh")):
            if kept in self.parts:
                text = f"PyTorch's {left} is left out, only its {kept} is added"
                yield Mistake(f"{left}_missing", text, lambda p, kept=kept: p.with_weights(**self.biases(kept)))
        yield Mistake("bias_missing", "the biases are not added", lambda p: p.without("bias").without(HN))
        yield Mistake("bias_twice", "the bias is added twice", lambda p: p.with_weights(bias=2 * p.weights["bias"]))

    def biases(self, *kept: str) -> dict[str, NDArray]:
        """The biases that the layer would have with some of PyTorch's two only."""
        return {"bias": np.sum([self.parts[name] for name in kept], axis=0)}


def activation_mistakes(field: str, used: str, of: str, others: tuple[str, ...]) -> Iterator[Mistake]:
    """The mistakes of another function in the place of one.

    Args:
        field: that holds its name.
        used: the right one.
        of: what it is applied to, in words.
        others: to try.
    """
    for name in others:
        if name != used:
            yield setting(f"{field}_{name}", f"{name} instead of {used} is applied to {of}", **{field: name})


def recorded_layer(made: type[Recurrence], recorded: Recorded, **settings: Any) -> Layer | None:
    """A recorded layer; None if its weights or its state aren't as its kind has them."""
    known = {name: w for name, w in recorded.weights.items() if name in ("weight_ih", "weight_hh", "bias", HN)}
    if recorded.x.ndim != 3 or not {"weight_ih", "weight_hh"} <= {*known} or not recorded.more:
        return None
    parts = {n: np.asarray(recorded.settings[n]) for n in ("bias_ih", "bias_hh") if recorded.settings.get(n)}
    return made(x=recorded.x, weights=known, state=tuple(recorded.more), parts=parts, **settings)


def as_in_flax(paths: list[str]) -> dict[str, str]:
    """What Flax calls the leaves of PyTorch's recurrent layers, `lstm.l0_reverse` and so on, by path.

    One layer in one direction has the name of its module, one in both the names of `Bidirectional`'s parts; of several
    layers each has its number before.
    """
    named: dict[str, str] = {}
    for path in paths:
        module, _, name = path.rpartition(".")
        if (match := re.fullmatch(r"l(\d+)(_reverse)?|step", name)) is None:
            continue
        beside = {p.rpartition(".")[2] for p in paths if p.rpartition(".")[0] == module}
        layer = [match[1]] if beside - {"l0", "l0_reverse", "step"} and match[1] else []
        both = {"l0", "l0_reverse"} <= beside
        direction = ["backward_rnn" if match[2] else "forward_rnn"] if both else []
        named[path] = ".".join(filter(None, [module, *layer, *direction]))
    return named


def _then(layer: Layer, change: Callable[[NDArray], NDArray]) -> Layer:
    return replace(layer, after=(*layer.after, change))


def _reordered(p: Layer, order: tuple[int, ...]) -> Layer | None:
    """The layer whose gates' rows are taken for others: gate k computes with the rows of gate order.index(k)."""
    if not isinstance(p, Recurrence):
        return None
    rows = [order.index(gate) for gate in range(len(order))]

    def moved(array: NDArray) -> NDArray:
        return array.reshape(len(order), -1, *array.shape[1:])[rows].reshape(array.shape)

    return p.with_weights(**{name: moved(w) for name, w in p.weights.items() if name != HN})


def _exchanged(p: Layer) -> Layer | None:
    one, other = p.weights["weight_ih"], p.weights["weight_hh"]
    return p.with_weights(weight_ih=other, weight_hh=one) if one.shape == other.shape else None


def _each_transposed(p: Layer, name: str) -> Layer | None:
    if not isinstance(p, Recurrence) or p.weights[name].shape[1] != p.size:
        return None
    blocks = p.weights[name].reshape(-1, p.size, p.size).swapaxes(1, 2)
    return p.with_weights(**{name: blocks.reshape(p.weights[name].shape)})
