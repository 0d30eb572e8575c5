"""Reading a file of weights for PyTorch, by PyTorch's own means and without a word from `jax_alexnet`.

`jax_alexnet.files.weight_homes` is what brings a file to Flax, and it is under comparison: were PyTorch's weights made
from what it read, a mistake in it would be on both sides and nowhere to be seen.

safetensors is imported for such files alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from parity.alexnet import flattened
from parity.kinds import torch_leaves, weights

# What wrappers put before every name.
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        tensors: by their names in the file, wrappers' prefixes taken off.
        facts: plain values beside them: `model`, `image_size`, `home` in files of this project.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, str]

    @property
    def image_size(self) -> int | None:
        """Side in pixels that the network was made for, as far as the file says."""
        said = self.facts.get("image_size", "")
        return int(said) if said.isdigit() else None


def read(path: Path) -> Content:
    """Everything in a .safetensors file or in one of PyTorch's own, of which nothing is run.

    Raises:
        UserError: it can't be read, or holds no weights.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                return Content({_bare(name): tensor for name, tensor in tensors.items()}, dict(file.metadata() or {}))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # either library raises nearly anything on what it did not write
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{printable(path)} can't be read by PyTorch ({reason}): use another copy") from None
    facts: dict[str, str] = {}
    for found in _dictionaries(loaded):
        facts |= {str(key): str(value) for key, value in found.items() if isinstance(value, (str, int))}
        tensors = {_bare(str(name)): value for name, value in found.items() if isinstance(value, Tensor)}
        if any(name.endswith((".weight", ".bias")) for name in tensors):
            return Content(tensors, facts)
    raise UserError(f"{printable(path)} holds no state dict: save one by torch.save(model.state_dict())")


def classes_of(content: Content, model: nn.Module) -> int:
    """Outputs of the last layer, which the file alone decides.

    Args:
        content: of the file.
        model: the network, of any number of classes.
    """
    leaves = _with_weights(model)
    last = f"{list(leaves)[-1]}.bias"
    sizes = [content.tensors[name].numel() for name, own in _own_names(content.tensors, leaves).items() if own == last]
    if not sizes:
        raise UserError(f"the file doesn't fit PyTorch's network: it has no {last}")
    return sizes[0]


def state_of(content: Content, model: nn.Module, image_size: tuple[int, int]) -> dict[str, NDArray]:
    """The tensors as a state dict of `torch_ref`'s network.

    Args:
        content: of the file.
        model: the network, built for these classes and this image size.
        image_size: height and width.

    Raises:
        UserError: names or shapes that aren't the network's.
    """
    leaves, state = _with_weights(model), {}
    for name, own in _own_names(content.tensors, leaves).items():
        array, path = _to_numpy(content.tensors[name]), own.rpartition(".")[0]
        if name.endswith("/kernel") and path in leaves:  # in Flax's layout
            kind = torch_leaves.kind_of(leaves[path])
            layout = flattened.flattened_map(model, path, image_size) if kind == "dense" else None
            array = np.ascontiguousarray(weights.to_torch(kind, "weight", array, layout))
        state[own] = array
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    wrong = sorted(name for name in {*wanted, *state} if name not in state or state[name].shape != wanted.get(name))
    if wrong:
        raise UserError(f"the file doesn't fit PyTorch's network: {', '.join(map(printable, wrong[:10]))}")
    return state


def _with_weights(model: nn.Module) -> dict[str, nn.Module]:
    return {path: leaf for path, leaf in torch_leaves.leaves(model).items() if torch_leaves.state_of(leaf)}


def _own_names(names: Iterable[str], leaves: Mapping[str, nn.Module]) -> dict[str, str]:
    """Names in the file to those in `torch_ref`'s network, whose layers lie in the order in which they run."""
    numbered = {name.rpartition(".")[0] for name in names if name.startswith(("features.", "classifier."))}
    # torchvision numbers the same layers, first all features, then the classifier's.
    places = sorted(numbered, key=lambda path: (path.startswith("classifier"), int(path.rpartition(".")[2])))
    ours = dict(zip(places, leaves, strict=False))
    found = {}
    for name in names:
        path, _, part = name.rpartition("/" if "/" in name else ".")
        found[name] = f"{ours.get(path, path)}.{'weight' if part == 'kernel' else part}"
    return found


def _dictionaries(loaded: Any) -> Iterator[Mapping[Any, Any]]:
    """The dictionaries in what was loaded, from the outermost in."""
    if not isinstance(loaded, Mapping):
        return
    yield loaded
    for value in loaded.values():
        yield from _dictionaries(value)


def _bare(name: str) -> str:
    while any(prefix in name for prefix in _PREFIXES):
        for prefix in _PREFIXES:
            name = name.replace(prefix, "")
    return name


def _to_numpy(tensor: Tensor) -> NDArray:
    """Contiguous; bfloat16 and float16 as float32, which holds them exactly."""
    tensor = tensor.detach().contiguous()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
