"""Where the weights of PyTorch's recurrent layers go in the cells of Flax's, gate by gate.

PyTorch keeps all gates' weights of a layer in one tensor and two biases; Flax's cells have layers of their own for
gates, and most of them one bias where PyTorch has two, which is their sum. A GRU's reset gate multiplies a part of the
second one, which stays apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from parity.mapping.operations import Shape, Split, Transpose
from parity.mapping.tensors import Source

_GATES_OF_A_GRU = 3


@dataclass(frozen=True)
class Cell:
    """One of Flax's cells as `parity.kinds.recurrent_cells` knows them.

    Attributes:
        path: where its variables lie in the model's.
        gates: how many.
        inputs: names of the input's layers, one a gate or one for all; likewise states.
        states: see `inputs`.
        shapes: of each layer's arrays.
    """

    path: str
    gates: int
    inputs: Sequence[str]
    states: Sequence[str]
    shapes: Mapping[str, Mapping[str, Sequence[int]]]

    def to_json(self) -> dict[str, Any]:
        """As another process can read it."""
        return asdict(self) | {"shapes": {layer: dict(arrays) for layer, arrays in self.shapes.items()}}

    def leaves(self, torch_path: str, shapes: Mapping[str, Shape]) -> tuple[dict[str, list[Source]], list[str]]:
        """Its leaves by path within its model, each with what it is the sum of; and what is wrong, in words.

        Args:
            torch_path: of PyTorch's layer in one direction, such as `lstm.l0_reverse`, or of a cell's only step.
            shapes: of the state dict's tensors.
        """
        made: dict[str, list[Source]] = {}
        problems: list[str] = []
        for side, layers in (("ih", self.inputs), ("hh", self.states)):
            for number, layer in enumerate(layers):
                gates = range(self.gates) if len(layers) == 1 else range(number, number + 1)
                path = "/".join(filter(None, (self.path, layer)))
                made[f"{path}/kernel"] = [self._source(_named(torch_path, f"weight_{side}"), gates, shapes, True)]
                if "bias" in self.shapes[layer]:
                    sides = self._sides(side, gates)
                    if sides is None:
                        problems.append(f"{path}/bias holds the sum of PyTorch's biases for some of its gates only")
                        continue
                    names = [_named(torch_path, f"bias_{each}") for each in sides]
                    made[f"{path}/bias"] = [self._source(name, gates, shapes, False) for name in names]
        for side, layers in (("ih", self.inputs), ("hh", self.states)):
            name = _named(torch_path, f"bias_{side}")
            if self.gates == _GATES_OF_A_GRU and name in shapes and not self._has_bias(layers, self.gates - 1):
                problems.append(
                    f"{name} has no place in {self.path or 'the cell'}, which lacks a bias of the last gate"
                )
        wanted = {source.torch for sources in made.values() for source in sources} - {*shapes}
        problems += [f"{name} isn't in the state dict of the PyTorch model" for name in sorted(wanted)]
        return made, problems

    def shape(self, leaf: str) -> Shape:
        """Of one of the paths that `leaves` gives."""
        layer, _, name = leaf.removeprefix(f"{self.path}/" if self.path else "").rpartition("/")
        return tuple(self.shapes[layer][name])

    def _sides(self, side: str, gates: range) -> list[str] | None:
        """Whose biases a layer's is the sum of, for these gates; None where that is another sum for each."""
        other, layers = ("hh", self.states) if side == "ih" else ("ih", self.inputs)
        alone = [
            self._has_bias(layers, gate) or (self.gates == _GATES_OF_A_GRU and gate == self.gates - 1) for gate in gates
        ]
        return [side] if all(alone) else None if any(alone) else [side, other]

    def _has_bias(self, layers: Sequence[str], gate: int) -> bool:
        return "bias" in self.shapes[layers[0] if len(layers) == 1 else layers[gate]]

    def _source(self, name: str, gates: range, shapes: Mapping[str, Shape], kernel: bool) -> Source:
        shape = shapes.get(name, ())
        size = shape[0] // self.gates if shape else 0
        part = [] if len(gates) == self.gates else [Split(0, gates.start * size, gates.stop * size)]
        return Source(name, shape, (*part, *([Transpose((1, 0))] if kernel else [])))


def _named(torch_path: str, weight: str) -> str:
    """A weight's name in the state dict: of `lstm.l0` it is `lstm.weight_ih_l0`, of a cell's `step` `weight_ih`."""
    module, _, name = torch_path.rpartition(".")
    return ".".join(filter(None, (module, weight if name == "step" else f"{weight}_{name}")))
