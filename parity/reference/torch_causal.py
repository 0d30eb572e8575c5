"""Convolutions over time that are padded at both ends and cut afterwards, in the copy that is run: padded before only.

So Mamba and others write a causal convolution in PyTorch. In JAX it is one layer with `CAUSAL` padding, whose result
has no end that is cut off. The layer that stands in its place runs on what is padded before, and adds the end, which
nobody uses, by itself. That nobody does is seen from the gradients of a run: the end gets none.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity.comparison.layer_names import part_name
from parity.kinds import weights
from parity.kinds.leaf import Leaf
from parity.reference.torch_stand_ins import hooked, replaced
from parity.reference.torch_tensors import tensors_in


class Causal(nn.Module):
    """A convolution that sees nothing behind a place; then the end that padding there would have added."""

    def __init__(self, whole: nn.Conv1d, name: str) -> None:
        super().__init__()
        self.before = int(whole.padding[0])
        self.inner = part_name(name)
        made = copy.deepcopy(whole)
        made.padding = (0,)
        made._reversed_padding_repeated_twice = [0, 0]
        self.add_module(self.inner, made)
        self.parts = {f"{self.inner}.{each}": (each, None, None) for each in made.state_dict()}

    def forward(self, x: Tensor) -> Tensor:
        """The same function as the whole's."""
        layer: Any = self.get_submodule(self.inner)
        y = layer(F.pad(x, (self.before, 0)))
        rest = F.pad(x, (self.before, self.before))[..., x.shape[-1] :]
        end = F.conv1d(rest, layer.weight, layer.bias, dilation=layer.dilation, groups=layer.groups)
        return torch.cat([y, end], -1)


def as_in_flax(
    model: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any], torch_leaves: list[Leaf], flax: list[Leaf]
) -> bool:
    """Pad convolutions before only where Flax does and what else they give is cut off; whether there were any.

    Args:
        model: changed in place.
        inputs: of its call, in float64 where they aren't integers.
        kwargs: more of its arguments.
        torch_leaves: the model's leaves.
        flax: the other side's.
    """
    modules, causal = dict(model.named_modules()), [leaf for leaf in flax if leaf.causal]
    found = {}
    for leaf in torch_leaves:
        shapes = weights.flax_shapes(leaf.kind, leaf.shapes)
        same = any(leaf.kind == x.kind and shapes.get("kernel") == tuple(x.shapes.get("kernel", ())) for x in causal)
        if same and _both_ends(modules[leaf.path]) and not hooked(modules[leaf.path]):
            found[leaf.path] = modules[leaf.path]
    cut = _unused(model, list(found), inputs, kwargs) if found else set()
    made: dict[int, nn.Module] = {}
    for path in cut:
        if isinstance(whole := found[path], nn.Conv1d):
            made[id(whole)] = Causal(whole, path.rpartition(".")[2]).eval()
    if made:
        replaced(model, made)
    return bool(made)


def _both_ends(module: nn.Module) -> bool:
    if type(module) is not nn.Conv1d or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return module.stride == (1,) and module.padding[0] == module.dilation[0] * (module.kernel_size[0] - 1) > 0


def _unused(model: nn.Module, paths: list[str], inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> set[str]:
    """Those of these convolutions of whose results only as much is used as they got."""
    exact = copy.deepcopy(model).double()
    ends: dict[str, list[tuple[Tensor, int]]] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> Tensor:
            result = result if result.requires_grad else result.requires_grad_()
            result.retain_grad()
            ends.setdefault(path, []).append((result, args[0].shape[-1]))
            return result

        return hook

    for path in paths:
        exact.get_submodule(path).register_forward_hook(note(path))
    # What breaks down in this run does so in the one that is recorded, which says where.
    with torch.enable_grad(), contextlib.suppress(RuntimeError):
        results = tensors_in(exact(*inputs, **kwargs))
        ones = [result.square().sum() for result in results if result.requires_grad]
        torch.autograd.backward(ones)
    return {
        path
        for path, each in ends.items()
        if all(y.grad is not None and y.grad.any() and not y.grad[..., length:].any() for y, length in each)
    }
