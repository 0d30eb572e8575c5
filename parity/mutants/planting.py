"""Tools to plant a bug into one side of a pair without touching the other, or the pair it was made from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jax_alexnet.layer_specs import Layer
from jax_alexnet.variants import VARIANTS
from parity.alexnet import flattened
from parity.alexnet.pairs import Pair
from parity.candidate.jax_arrays import placed
from parity.kinds import torch_leaves, weights


@contextmanager
def patched(owner: ModuleType | type, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module or class while inside."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def jax_rows(pair: Pair, change: Callable[[list[Layer]], list[Layer]]) -> Pair:
    """The pair with another table of layers in the JAX network."""
    planted = pair.flax_module.variant
    variant = VARIANTS[planted] if isinstance(planted, str) else planted  # another bug may be in it already
    changed = replace(variant, layers=tuple(change(list(variant.layers))))
    return replace(pair, flax_module=pair.flax_module.clone(variant=changed))


def jax_row(pair: Pair, name: str, **settings: Any) -> Pair:
    """The pair with other settings in one row of the JAX network's table."""
    return jax_rows(pair, lambda rows: [replace(r, **settings) if r.name == name else r for r in rows])


def jax_swapped(pair: Pair, first: str, second: str) -> Pair:
    """The pair with two layers of the JAX network exchanged in order."""

    def change(rows: list[Layer]) -> list[Layer]:
        names = [row.name for row in rows]
        i, j = names.index(first), names.index(second)
        rows[i], rows[j] = rows[j], rows[i]
        return rows

    return jax_rows(pair, change)


def jax_weight(pair: Pair, path: str, change: Callable[[NDArray], NDArray], name: str = "weight") -> Pair:
    """The pair with another weight or bias in the JAX network; `change` works on PyTorch's layout."""
    leaf = dict(pair.variables["params"][path])
    module = pair.torch_module.get_submodule(path)
    kind = torch_leaves.kind_of(module)
    if name == "bias":
        leaf["bias"] = placed(change(np.asarray(leaf["bias"])), leaf["bias"].dtype)
    else:
        layout = flattened.flattened_map(pair.torch_module, path, pair.image_size) if kind == "dense" else None
        kernel = weights.to_torch(kind, "weight", np.asarray(leaf["kernel"]), layout)
        changed = weights.to_flax(kind, "weight", np.ascontiguousarray(change(kernel)), layout)
        leaf["kernel"] = placed(changed, leaf["kernel"].dtype)
    return replace(pair, variables={"params": {**pair.variables["params"], path: leaf}})


def torch_module(pair: Pair, path: str, change: Callable[[nn.Module], nn.Module | None]) -> Pair:
    """The pair with another child in the PyTorch network; `change` gets a copy that shares its parameters."""
    network = shallow(pair.torch_module)
    child = shallow(network._modules[path])
    network._modules[path] = change(child) or child
    return replace(pair, torch_module=network)


def torch_settings(pair: Pair, path: str, **settings: Any) -> Pair:
    """The pair with other attributes of one PyTorch layer."""

    def change(child: nn.Module) -> None:
        for name, value in settings.items():
            setattr(child, name, value)

    return torch_module(pair, path, change)


def torch_weight(pair: Pair, path: str, change: Callable[[NDArray], NDArray], name: str = "weight") -> Pair:
    """The pair with another weight or bias in the PyTorch network."""

    def replaced(child: nn.Module) -> None:
        before = getattr(child, name).detach()
        changed = torch.from_numpy(np.ascontiguousarray(change(before.numpy()))).to(before.dtype)
        child._parameters[name] = nn.Parameter(changed)

    return torch_module(pair, path, replaced)


def torch_swapped(pair: Pair, first: str, second: str) -> Pair:
    """The pair with two layers of the PyTorch network exchanged in order."""
    names = [name for name, _ in pair.torch_module.named_children()]
    i, j = names.index(first), names.index(second)
    names[i], names[j] = names[j], names[i]
    return replace(pair, torch_module=InOrder(pair.torch_module, names))


def shallow(module: Any) -> Any:
    """A copy of a module that shares its parameters and its children."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin._parameters = dict(module._parameters)
    twin._forward_hooks = type(module._forward_hooks)()
    twin._forward_pre_hooks = type(module._forward_pre_hooks)()
    return twin


class InOrder(nn.Module):
    """The children of a network in another order.

    Args:
        network: whose children run; maps are flattened before the first fully connected one.
        names: of the children, in the order in which they run.
    """

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, network.get_submodule(name))
        self.map_size = network.map_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        x = images
        for child in self.children():
            if isinstance(child, nn.Linear) and x.ndim == 4:
                x = x.flatten(1)
            x = child(x)
        return x


@contextmanager
def nothing(pair: Pair) -> Iterator[Pair]:
    """For bugs that can't be planted here."""
    yield pair
