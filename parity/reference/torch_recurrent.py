"""PyTorch's recurrent layers and cells taken apart: a leaf for each layer in each direction, see `torch_stand_ins`.

A leaf is called with the sequence as it processes it, steps first, and with its initial state, and gives one array, as
`parity.kinds.recurrence` says. Its bias is the sum of PyTorch's two: their gradients are the same, that of the sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from parity.errors import CannotCompare
from parity.kinds import registry
from parity.kinds.leaf import Leaf


class Recurrence(nn.Module):
    """One layer in one direction, or a cell, whose sequence has one step.

    Args:
        packed: PyTorch's module.
        suffix: of its weights' names.
    """

    bias: Tensor

    def __init__(self, packed: nn.Module, suffix: str) -> None:
        super().__init__()
        weights = {n: getattr(packed, f"{n}{suffix}", None) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        self.weight_ih, self.weight_hh = (_copied(weights[name]) for name in ("weight_ih", "weight_hh"))
        of_input, of_state = weights["bias_ih"], weights["bias_hh"]
        if of_input is None or of_state is None:
            # None to be trained: Flax's layers have a bias, which must be zero.
            for name, size in self.biases(self.weight_ih.new_zeros(len(self.weight_ih)), None).items():
                self.register_buffer(name, size)
            return
        trained = of_input.requires_grad or of_state.requires_grad
        for name, value in self.biases(of_input.detach(), of_state.detach()).items():
            setattr(self, name, nn.Parameter(value.clone(), trained))
        # Numbers, for causes: which of the two is missing.
        self.bias_ih, self.bias_hh = of_input.double().tolist(), of_state.double().tolist()

    def biases(self, of_input: Tensor, of_state: Tensor | None) -> dict[str, Tensor]:
        """The leaf's own, from PyTorch's."""
        return {"bias": of_input if of_state is None else of_input + of_state}

    @property
    def size(self) -> int:
        """Features of the state."""
        return self.weight_hh.shape[1]

    def forward(self, x: Tensor, *state: Tensor) -> Tensor:
        """Gives (steps, N, size), of an LSTM (steps + 1, N, size).

        Args:
            x: (steps, N, inputs).
            state: the initial one, (N, size) each.
        """
        found = []
        for inputs in F.linear(x, self.weight_ih).unbind(0):
            state = self.step(inputs, *state)
            found.append(state[0])
        return torch.stack([*found, *state[1:]])

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The state after a step, from the input's product with its weights and the state before."""
        raise NotImplementedError


class ElmanRecurrence(Recurrence):
    """See `nn.RNN`."""

    def __init__(self, packed: nn.Module, suffix: str) -> None:
        super().__init__(packed, suffix)
        self.nonlinearity = str(packed.nonlinearity)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See `Recurrence.step`."""
        argument = x + F.linear(state[0], self.weight_hh, self.bias)
        return (torch.relu(argument) if self.nonlinearity == "relu" else torch.tanh(argument),)


class LSTMRecurrence(Recurrence):
    """See `nn.LSTM`."""

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See `Recurrence.step`."""
        i, f, g, o = (x + F.linear(state[0], self.weight_hh, self.bias)).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GRURecurrence(Recurrence):
    """See `nn.GRU`."""

    bias_hn: Tensor

    def biases(self, of_input: Tensor, of_state: Tensor | None) -> dict[str, Tensor]:
        """What the reset gate multiplies stays apart."""
        size = 2 * self.size
        if of_state is None:
            return {"bias": of_input, "bias_hn": of_input[size:].clone()}
        summed = torch.cat([of_input[:size] + of_state[:size], of_input[size:]])
        return {"bias": summed, "bias_hn": of_state[size:]}

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See `Recurrence.step`."""
        (h,) = state
        of_x, of_h = (x + self.bias).chunk(3, -1), F.linear(h, self.weight_hh).chunk(3, -1)
        r, z = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
        n = torch.tanh(of_x[2] + r * (of_h[2] + self.bias_hn))
        return ((1 - z) * n + z * h,)


_LEAVES: dict[type, type[Recurrence]] = {
    nn.RNN: ElmanRecurrence, nn.LSTM: LSTMRecurrence, nn.GRU: GRURecurrence,
    nn.RNNCell: ElmanRecurrence, nn.LSTMCell: LSTMRecurrence, nn.GRUCell: GRURecurrence,
}  # fmt: skip


class SeparateRecurrent(nn.Module):
    """The same function of the same arguments as a stock layer in evaluation mode, on copied weights.

    Its leaves are `l0`, `l0_reverse`, `l1` and so on, as PyTorch calls their weights.
    """

    def __init__(self, packed: nn.RNNBase) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = packed.input_size, packed.hidden_size, packed.num_layers
        self.batch_first, self.bidirectional, self.bias = packed.batch_first, packed.bidirectional, packed.bias
        self.mode, self.dropout, self.proj_size = packed.mode, packed.dropout, packed.proj_size
        self.states, self.results = (2 if packed.mode == "LSTM" else 1), "all"
        for layer in range(packed.num_layers):
            for direction in ("", "_reverse")[: 1 + packed.bidirectional]:
                leaf = _LEAVES[type(packed)](packed, f"_l{layer}{direction}")
                self.add_module(f"l{layer}{direction}", leaf)

    def flatten_parameters(self) -> None:
        """Nothing to be done."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, ...]:
        """See `nn.LSTM`; as a whole model see `alone`."""
        if isinstance(input, PackedSequence):
            raise CannotCompare(f"a PackedSequence goes into {self.mode} (PyTorch): compare sequences of one length")
        single = input.dim() == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        given = [] if hx is None else [t.unsqueeze(1) if single else t for t in ((hx,) if self.states == 1 else hx)]
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for turned in range(1 + self.bidirectional):
                leaf, place = self.get_submodule(f"l{layer}{'_reverse' * turned}"), len(last)
                zero = x.new_zeros(x.shape[1], self.hidden_size)
                state = [t[place] for t in given] or [zero] * self.states
                y, *final = _run(leaf, x.flip(0) if turned else x, state)
                outputs.append(y.flip(0) if turned else y)
                last.append(final)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        states = [torch.stack(each) for each in zip(*last, strict=True)]
        if self.results == "steps first":
            return x, *(state for each in last for state in each)
        if single:
            x, states = x.squeeze(1), [each.squeeze(1) for each in states]
        elif self.batch_first:
            x = x.transpose(0, 1)
        if self.results == "sequence":
            return (x,)
        return x, (states[0] if self.states == 1 else tuple(states))  # type: ignore[return-value]


class SeparateCell(nn.Module):
    """The same function of the same arguments as a stock cell, on copied weights; its leaf is `step`."""

    def __init__(self, packed: nn.RNNCellBase) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = packed.input_size, packed.hidden_size, packed.bias
        self.states = 2 if isinstance(packed, nn.LSTMCell) else 1
        self.step = _LEAVES[type(packed)](packed, "")

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """See `nn.LSTMCell`."""
        single = input.dim() == 1
        x = input.unsqueeze(0) if single else input
        given = [] if hx is None else [t.unsqueeze(0) if single else t for t in ((hx,) if self.states == 1 else hx)]
        zero = x.new_zeros(len(x), self.hidden_size)
        _, *state = _run(self.step, x.unsqueeze(0), given or [zero] * self.states)
        state = [t.squeeze(0) for t in state] if single else state
        return state[0] if self.states == 1 else tuple(state)


def stand_in(module: nn.Module) -> nn.Module | None:
    """An equal module for a stock recurrent layer or cell; None for any other module, which is refused if it is one."""
    if type(module) not in _LEAVES or getattr(module, "proj_size", 0):
        return None
    names = {name for name, _ in module.named_parameters()}
    directions = 1 + getattr(module, "bidirectional", False)
    expected = getattr(module, "num_layers", 1) * directions * (4 if module.bias else 2)
    if len(names) != expected or any(name.startswith("parametrizations") for name in names):
        return None
    return SeparateCell(module) if isinstance(module, nn.RNNCellBase) else SeparateRecurrent(module)  # type: ignore[arg-type]


def alone(module: nn.Module, flax: Iterable[Leaf]) -> nn.Module:
    """A stand-in that is the whole model: it gives what a model of these leaves gives.

    A stock layer of Flax's, alone, is made to give its last states as well; any other module gives a sequence.
    """
    if not isinstance(module, SeparateRecurrent):
        return module
    stock = {leaf.path for leaf in flax if registry.named(leaf.kind).recurrent} in (
        {""},
        {"forward_rnn", "backward_rnn"},
    )
    module.results = "steps first" if stock else "sequence"
    return module


def gives_states(model: nn.Module) -> bool:
    """Whether the whole model is a stand-in that gives its last states, too."""
    return isinstance(model, SeparateRecurrent) and model.results == "steps first"


def _run(leaf: nn.Module, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    """The sequence that a leaf gives, and its last state."""
    packed = leaf(x, *state)
    y = packed[: len(x)]
    return [y, y[-1], *packed[len(x) :].unbind(0)]


def _copied(weight: Any) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), weight.requires_grad)
