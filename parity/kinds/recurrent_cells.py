"""How Flax's recurrent cells keep the arrays of `parity.kinds.recurrence`: layers by gate, or all gates in one layer.

| | Linen | nnx |
| --- | --- | --- |
| LSTM | ii, if, ig, io without, hi, hf, hg, ho with a bias | the same (if_), or dense_i without, dense_h with a bias |
| GRU | ir, iz, in with, hr, hz without, hn with a bias | dense_i with, dense_h without a bias |
| simple | i with, h without a bias | dense_i with, dense_h without a bias |

Whatever a cell lacks is zero in the arrays, and what it has twice is summed there. The functions work on arrays of
NumPy or JAX, whose module is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.kinds.recurrence import HN

Tree = Mapping[str, Any]

_BY_GATE = (
    (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    (("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")),
    (("ir", "iz", "in"), ("hr", "hz", "hn")),
    (("ir", "iz", "in_"), ("hr", "hz", "hn")),
)
# What is written by hand: one layer for the input and one for the state, each with all gates.
_STACKED = (
    "dense_i dense_h", "i h", "ih hh", "i2h h2h", "x2h h2h", "input hidden", "input recurrent", "linear_ih linear_hh",
    "dense_ih dense_hh", "dense_x dense_h", "wx wh", "W U", "input_proj hidden_proj", "weight_ih weight_hh",
)  # fmt: skip
_NAMINGS = (*_BY_GATE, *(((a,), (b,)) for a, b in (pair.split() for pair in _STACKED)))
_OF_LETTERS = {4: "lstm", 3: "gru", 1: "simple_recurrence"}


@dataclass(frozen=True)
class Cell:
    """How one cell keeps its arrays.

    Attributes:
        gates: how many.
        inputs: names of the input's layers, one a gate or one for all; likewise states.
        states: see `inputs`.
        shapes: of each layer's arrays.
    """

    gates: int
    inputs: tuple[str, ...]
    states: tuple[str, ...]
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]

    @property
    def size(self) -> int:
        """Features of the state."""
        return self.shapes[self.states[0]]["kernel"][0]

    @property
    def arrays(self) -> int:
        """Of the state: an LSTM has c beside h."""
        return 2 if self.gates == 4 else 1

    def packed(self, tree: Tree, np: Any) -> dict[str, Any]:
        """The arrays of `parity.kinds.recurrence`, in Flax's layout, from the cell's own by layer."""
        found = {
            f"kernel_{name}": np.concatenate([tree[layer]["kernel"] for layer in layers], -1)
            for name, layers in (("ih", self.inputs), ("hh", self.states))
        }
        of_input, of_state = (self._bias(tree, layers, np) for layers in (self.inputs, self.states))
        if self.gates == 3:
            plain = 2 * self.size
            found["bias"] = np.concatenate([_sum(of_input[:plain], of_state[:plain], self, np), of_input[plain:]])
            return found | {HN: of_state[plain:]}
        return found | {"bias": _sum(of_input, of_state, self, np)}

    def unpacked(self, arrays: Tree, np: Any) -> dict[str, dict[str, Any]]:
        """The inverse: of two biases that are only summed, one is the sum and the other one zero."""
        made: dict[str, dict[str, Any]] = {}
        for name, layers in (("ih", self.inputs), ("hh", self.states)):
            kernels = np.split(arrays[f"kernel_{name}"], len(layers), axis=-1)
            for layer, kernel in zip(layers, kernels, strict=True):
                made[layer] = {"kernel": kernel}
        bias = arrays["bias"]
        of_input, of_state = np.zeros_like(bias), np.zeros_like(bias)
        if self._has_bias(self.states) and not self._has_bias(self.inputs):
            of_state = bias
        else:
            of_input = bias
        if self.gates == 3:
            of_state = np.concatenate([of_state[: 2 * self.size], arrays[HN]])
        for layers, values in ((self.inputs, of_input), (self.states, of_state)):
            for layer, value in zip(layers, np.split(values, len(layers)), strict=True):
                if "bias" in self.shapes[layer]:
                    made[layer]["bias"] = value
        return made

    def _has_bias(self, layers: tuple[str, ...]) -> bool:
        return "bias" in self.shapes[layers[0]]

    def _bias(self, tree: Tree, layers: tuple[str, ...], np: Any) -> Any:
        parts = []
        for layer in layers:
            kernel = tree[layer]["kernel"]
            bias = tree[layer].get("bias")
            parts.append(np.zeros(kernel.shape[-1:], kernel.dtype) if bias is None else bias)
        return np.concatenate(parts)


def _sum(of_input: Any, of_state: Any, cell: Cell, np: Any) -> Any:
    """Both, without a rounding where there is one only."""
    has = [any("bias" in cell.shapes[layer] for layer in layers) for layers in (cell.inputs, cell.states)]
    if cell.gates == 3 and not (len(cell.states) == 1 and has[1]):
        has[1] = "bias" in cell.shapes[cell.states[0]]
    return of_input + of_state if all(has) else of_state if has[1] else of_input


def cell_of(tree: Tree) -> Cell | None:
    """How a cell keeps its arrays, from those it has, or their shapes; None if that isn't known."""
    if not all(
        isinstance(node, Mapping) and "kernel" in node and {*node} <= {"kernel", "bias"} for node in tree.values()
    ):
        return None
    shapes = {name: {key: tuple(array.shape) for key, array in node.items()} for name, node in tree.items()}
    for inputs, states in _NAMINGS:
        if {*inputs, *states} != {*shapes}:
            continue
        rows, columns = (sum(shapes[layer]["kernel"][-1] for layer in layers) for layers in (inputs, states))
        size = shapes[states[0]]["kernel"][0]
        gates = columns // size
        same = rows == columns and columns == gates * size and gates in _OF_LETTERS
        if same and len(inputs) in (1, gates):
            return Cell(gates, inputs, states, shapes)
    return None
