"""A PyTorch model made ready to be captured: its packed modules taken apart, those that Flax looks into opened up."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from parity.comparison import tables
from parity.kinds.leaf import Leaf
from parity.reference import torch_causal, torch_fused, torch_joined, torch_recut, torch_stand_ins, torch_structure


def taken_apart(
    model: nn.Module,
    exact: tuple[Tensor, ...],
    tensors: tuple[Tensor, ...],
    kwargs: dict[str, Any],
    flax: list[Leaf],
    own: torch_joined.Own = lambda path: None,
) -> tuple[nn.Module, list[Leaf]]:
    """The model, changed in place, and its leaves.

    Args:
        model: a copy that may be changed, in evaluation mode.
        exact: inputs of its call, in float64 where they aren't integers.
        tensors: the same in the lane's dtype.
        kwargs: more of its arguments.
        flax: the leaves of the other side's model.
        own: gives the kernel that one of these has of its own; None where none is given.

    Raises:
        CannotCompare: a module gives something else when it is taken apart.
    """
    model = torch_stand_ins.separated(model, exact, kwargs, flax)
    model = torch_fused.separated(model, exact, kwargs)
    leaves = torch_structure.structure(model, tensors, kwargs)
    cut = torch_recut.as_in_flax(model, tensors, kwargs, leaves, flax)
    joined = torch_joined.as_in_flax(model, tensors, kwargs, leaves, flax, own)
    if torch_causal.as_in_flax(model, exact, kwargs, leaves, flax) or cut or joined:
        leaves = torch_structure.structure(model, tensors, kwargs)
    return model, leaves


def opened_up(
    model: nn.Module, leaves: list[Leaf], tensors: tuple[Tensor, ...], kwargs: dict[str, Any], flax: list[Leaf]
) -> list[Leaf]:
    """The leaves, with the parts of those modules in their place that Flax runs as layers of their own.

    Args:
        model: see `taken_apart`; likewise tensors, kwargs and flax.
        leaves: its own.
        tensors: see `taken_apart`.
        kwargs: see `taken_apart`.
        flax: see `taken_apart`.
    """
    opened = tables.uncalled(flax, leaves)
    if not opened:
        return leaves
    torch_fused.open_up(model, opened, flax)
    return torch_structure.structure(model, tensors, kwargs)
