"""One call of one leaf of a PyTorch model: what is recorded of it, and how it is run again by itself."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from parity.kinds import torch_leaves

# Stands for a tensor among the arguments, or the results, of a call.
PLACE = object()


class Call:
    """One call of one leaf, while it is being recorded and for its later replay."""

    def __init__(self, path: str, module: nn.Module, index: int, flat: list, spec: Any) -> None:
        self.path, self.module, self.index, self.spec = path, module, index, spec
        self.template = flat
        self.result: tuple[list, Any] = [], None
        self.arrays: dict[str, NDArray] = {}
        self.backward_arrays: dict[str, NDArray] = {}
        self.unbounded: dict[str, list[str]] = {}
        self.backward_unbounded: dict[str, list[str]] = {}
        self.tensors: list[Tensor] = []
        self.ops: list = []
        self.coarse: list = []
        self.glue_coarse: list = []
        self.map_shapes: list[tuple[int, ...] | None] = []
        self.sinks: list[int] = []
        self.glue_depth = self.cotangent_depth = self.n = self.open_inputs = self.taps = 0
        self.linear = False

    def key(self, stage: str) -> str:
        """Name of this call's record."""
        return f"{stage}-{self.index:04d}"

    def replay(self, inputs: list[Tensor], state: dict[str, Tensor]) -> Any:
        """The leaf alone on other inputs and other weights."""
        tensors = iter(inputs)
        flat = [next(tensors) if t is PLACE else t for t in self.template]
        args, kwargs = tree_unflatten(flat, self.spec)
        return torch_leaves.call(self.module, list(args), state, kwargs)

    def with_outputs(self, outputs: list[Tensor]) -> Any:
        """What the leaf returned, with other tensors in the places of its own."""
        tensors = iter(outputs)
        return tree_unflatten([next(tensors) if t is PLACE else t for t in self.result[0]], self.result[1])

    def facts(self, dtype: str, outputs: list[Tensor]) -> dict[str, Any]:
        """What the record says beside its arrays."""
        return {
            "path": self.path,
            "class": type(self.module).__name__,
            "bases": [base.__name__ for base in type(self.module).__mro__],
            "kind": torch_leaves.kind_of(self.module),
            "linear": self.linear,
            "n": self.n,
            "glue_depth": self.glue_depth,
            "ops": self.ops,
            "sinks": self.sinks,
            "coarse": self.coarse,
            "unbounded": self.unbounded,
            "glue_coarse": self.glue_coarse,
            "map_shapes": self.map_shapes,
            "dtype": dtype,
            "settings": torch_leaves.settings_of(self.module),
            "shapes": [list(y.shape) for y in outputs],
        }


class Tap(torch.autograd.Function):
    """Identity that shows the gradient passing back through it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, callback: Any) -> Tensor:
        """A copy, which autograd tells from the tensor."""
        ctx.callback = callback
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Hands a copy to the callback, and on."""
        gradient = gradient.clone()
        ctx.callback(gradient)
        return gradient, None


def double_state(module: nn.Module, absolute: bool = False) -> dict[str, Tensor]:
    """A module's parameters and statistics in float64, or their absolute values."""
    state = {k: v.double() for k, v in torch_leaves.state_of(module).items()}
    return {k: v.abs() for k, v in state.items()} if absolute else state
