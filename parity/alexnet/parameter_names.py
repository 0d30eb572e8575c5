"""JAX's parameters and optimizer memories under PyTorch's names and in its layout, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax
from numpy.typing import NDArray
from torch import nn

from parity.alexnet import flattened
from parity.kinds import layouts, torch_leaves, weights

# The optimizers' memories: the field of JAX's state, PyTorch's key.
SLOTS = {"velocity": "velocity", "trace": "momentum_buffer", "mu": "exp_avg", "nu": "exp_avg_sq"}


class ParameterNames:
    """Converts trees of one network's shape.

    Args:
        torch_module: the reference, which knows what its layers are.
        image_size: height and width that it is built for.
    """

    def __init__(self, torch_module: nn.Module, image_size: tuple[int, int]) -> None:
        self._module, self._image_size = torch_module, image_size
        self._kinds = {path: torch_leaves.kind_of(leaf) for path, leaf in torch_leaves.leaves(torch_module).items()}

    def as_torch(self, tree: Any) -> dict[str, NDArray]:
        """{layer: {"kernel", "bias"}} as a state dict."""
        found: dict[str, NDArray] = {}
        for path, leaf in tree.items():
            layout = self._rows(path)
            for name, array in leaf.items():
                name = weights.torch_name(self._kinds[path], name)
                array = weights.to_torch(self._kinds[path], name, np.asarray(array), layout)
                found[f"{path}.{name}"] = np.ascontiguousarray(array)
        return found

    def as_flax(self, arrays: dict[str, NDArray]) -> dict[str, dict[str, NDArray]]:
        """The inverse of `as_torch`."""
        tree: dict[str, dict[str, NDArray]] = {}
        for full, array in arrays.items():
            path, name = full.rsplit(".", 1)
            array = weights.to_flax(self._kinds[path], name, array, self._rows(path))
            name = weights.flax_name(self._kinds[path], name)
            tree.setdefault(path, {})[name] = np.ascontiguousarray(array)
        return tree

    def _rows(self, path: str) -> layouts.Layout | None:
        if self._kinds[path] != "dense":
            return None
        return flattened.flattened_map(self._module, path, self._image_size)


def slots(state: Any) -> dict[str, Any]:
    """The optimizer memories in an optax state: PyTorch's key to a tree of the parameters' shape.

    Of a state in which optax has masked layers that don't learn, the others' memories.
    """
    if isinstance(state, optax.transforms.PartitionState):
        masked: Any = state.inner_states.values()
        found = [slots(each.inner_state) for each in masked]
        return {key: _unmasked(tree) for each in found for key, tree in each.items()}
    parts = state if isinstance(state, tuple) and not hasattr(state, "_fields") else (state,)
    return {key: getattr(part, name) for part in parts for name, key in SLOTS.items() if hasattr(part, name)}


def _unmasked(tree: Any) -> Any:
    return {
        layer: leaves
        for layer, leaves in tree.items()
        if not any(isinstance(leaf, optax.MaskedNode) for leaf in leaves.values())
    }
