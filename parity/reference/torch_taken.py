"""Which of a layer's features the code behind it takes out of the result, seen in a run of PyTorch's model.

Beside the result goes an array that holds each value's feature, moved as the result is: whatever is a part of it holds
some features, and these are what somebody took, however he wrote it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from parity.bounds.torch_operation import MOVES
from parity.comparison.interleaved import Pattern, pattern
from parity.reference.torch_tensors import tensors_in

_JOINED = {"cat", "stack", "copy", "empty", "empty_like"}  # moves that put several together, or hold nothing yet
_EACH = {"mul", "div", "add", "sub", "clamp", "clamp_min", "clamp_max", "neg", "to"}  # of each value alone


class _Followed(TorchDispatchMode):
    """While active, follows results of layers through moves; `taken` is what was found of each, by path."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, list[Pattern]] = {}
        # The tensors are kept, so that no other one gets their memory.
        self._known: dict[tuple, tuple[Tensor, Tensor, str, int]] = {}

    def follow(self, path: str, result: Tensor, axis: int) -> None:
        """The result of a layer whose features lie along an axis."""
        total = result.shape[axis]
        shape = [total if each == axis % result.ndim else 1 for each in range(result.ndim)]
        codes = torch.arange(total, dtype=torch.int32).view(shape).expand(result.shape)
        self._known[_key(result)] = result, codes, path, total

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__.rstrip("_")
        known = self._known.get(_key(args[0])) if args and isinstance(args[0], Tensor) else None
        if known is None:
            return result
        _, codes, path, total = known
        if name in _EACH and not any(isinstance(each, Tensor) and each.ndim for each in args[1:]):
            moved: Any = codes
        elif name in MOVES - _JOINED:
            moved = codes.contiguous() if name == "_to_copy" else func(codes, *args[1:], **kwargs)
        else:
            return result
        for part, inside in zip(tensors_in(result), tensors_in(moved), strict=True):
            if part.shape == inside.shape:
                self._known[_key(part)] = part, inside, path, total
                if inside.numel() < codes.numel():  # else it holds the features that were there before
                    self._note(path, inside, total)
        return result

    def _note(self, path: str, codes: Tensor, total: int) -> None:
        found = pattern(codes.flatten().bincount(minlength=total).nonzero().flatten().numpy(), total)
        taken = self.taken.setdefault(path, [])
        if found is not None and found not in taken:
            taken.append(found)


def taken(
    model: nn.Module, paths: Iterable[str], inputs: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> dict[str, list[Pattern]]:
    """What is taken out of the results of these layers in a run, by path.

    Args:
        model: in evaluation mode.
        paths: of Linear layers, or of convolutions, whose features are their channels.
        inputs: of its call, in its own dtype.
        kwargs: more of its arguments.
    """
    mode = _Followed()

    def hook(path: str) -> Any:
        return lambda module, args, result: mode.follow(path, result, -1 if isinstance(module, nn.Linear) else 1)

    handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in paths]
    # What breaks down in this run does so in the one that is recorded, which says where.
    with torch.no_grad(), contextlib.suppress(RuntimeError, IndexError), mode:
        model(*inputs, **kwargs)
    for handle in handles:
        handle.remove()
    return mode.taken


def _key(tensor: Tensor) -> tuple:
    """Identity of a tensor's values."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
