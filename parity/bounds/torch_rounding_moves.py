"""The error bounds of operations that move, select, repeat or add up values, to first order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_rules import RULES, largest, rule


@rule(
    "view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "expand", "slice", "select",
    "clone", "detach", "alias", "squeeze", "unsqueeze", "cat", "stack", "split", "split_with_sizes", "chunk", "unbind",
    "index", "index_select", "gather", "repeat", "flip", "roll", "unfold", "im2col", "narrow", "diagonal", "as_strided",
    "slice_backward", "select_backward", "tril", "triu", "pixel_shuffle", "contiguous", "movedim", "unsafe_split",
    "block_diag", "masked_scatter_backward", "native_channel_shuffle",
    "value_selecting_reduction_backward", "pixel_unshuffle", "channel_shuffle", "rot90", "take", "masked_select",
    "diag_embed", "diagonal_backward", "unsafe_chunk", "unsafe_split_with_sizes", "view_copy", "expand_copy",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "embedding", "swapaxes", "moveaxis", "flatten",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "repeat_interleave", "lift", "squeeze_copy",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "fliplr", "flipud",
)  # fmt: skip
def moved(op: Operation) -> tuple[Any, int]:
    """Moves or selects values: the errors move along, and nothing is rounded."""
    if 0 not in op.errors:
        return None, 0
    error = op.errors[0]
    if op.name in ("view", "_unsafe_view", "_reshape_alias", "view_copy"):  # errors may lie otherwise in memory
        return error.reshape(op.output.shape), 0
    if op.name == "as_strided":
        if not op.args[0].is_contiguous() or op.args[0].storage_offset():
            raise ValueError("this view's place in memory isn't that of the errors")
        error = error.contiguous().clone()
    found = op.func(error, *op.args[1:], **op.kwargs)
    return (list(found) if isinstance(found, (list, tuple)) else found), 0


@rule("constant_pad_nd")
def _padded(op: Operation) -> tuple[Any, int]:
    error = op.errors.get(0)
    return (None if error is None else torch.nn.functional.pad(error, op.args[1])), 0


@rule("maximum", "minimum", "fmax", "fmin")
def _either(op: Operation) -> tuple[Any, int]:
    """|max(a, b) - max(a', b')| is at most the larger of both errors."""
    return largest(op), 0


@rule("select_scatter", "slice_scatter", "diagonal_scatter", "index_copy", "as_strided_scatter")
def _put(op: Operation) -> tuple[Any, int]:
    """A part is replaced by another tensor's values, with their errors."""
    if not op.errors:
        return None, 0
    given = [
        op.errors.get(i, torch.zeros_like(a, dtype=torch.float64)).clone()
        if isinstance(a, Tensor) and a.is_floating_point()
        else a
        for i, a in enumerate(op.args)
    ]
    return op.func(*given, **op.kwargs), 0


@rule("copysign")
def _signed(op: Operation) -> tuple[Any, int]:
    """A size with another one's sign."""
    return op.errors.get(0), 0


@rule("where")
def _chosen(op: Operation) -> tuple[Any, int]:
    """The error of the side that the reference chose."""
    if not op.errors:
        return None, 0
    zero = torch.zeros((), dtype=torch.float64)
    sides = (op.error(i) if i in op.errors else zero for i in (1, 2))
    return torch.where(op.args[0], *sides), 0


@rule("copy")
def _copied(op: Operation) -> tuple[Any, int]:
    """What was there doesn't matter; a narrower format rounds."""
    source = op.args[1]
    if source.is_floating_point() and op.unit > op.unit_of(source):
        return op.error(1) + op.rounded, 1
    return op.errors.get(1), 0


@rule("masked_fill", "index_fill", "masked_scatter", "scatter")
def _overwritten(op: Operation) -> tuple[Any, int]:
    """Some elements are replaced: by a number, or by those of another tensor, with its errors."""
    if not op.errors:
        return None, 0
    given = list(op.args)
    for i, arg in enumerate(given):
        if isinstance(arg, Tensor) and arg.is_floating_point():
            given[i] = op.errors[i].clone() if i in op.errors else torch.zeros_like(arg, dtype=torch.float64)
        elif i == len(given) - 1 and isinstance(arg, (int, float)) and not isinstance(arg, bool):
            given[i] = 0.0
    return op.func(*given, **op.kwargs), 0


@rule("amin", "min", "kthvalue", "median", "nanmedian", "sort", "topk", "aminmax", "mode", "cummin")
def _order_statistic(op: Operation) -> tuple[Any, int]:
    """A value of some rank moves by no more than the largest error of all that were ranked."""
    if 0 not in op.errors:
        return None, 0
    outputs = op.result if isinstance(op.result, (tuple, list)) else [op.result]
    error, out = op.errors[0], op.output
    if out.ndim == error.ndim and out.shape != error.shape:
        changed = [d for d in range(out.ndim) if out.shape[d] != error.shape[d]]
        worst = error.amax(changed, keepdim=True)
    else:
        worst = error.max()
    return [worst.expand(o.shape) if isinstance(o, Tensor) else None for o in outputs], 0


def summed(op: Operation) -> tuple[Any, int]:
    """Linear in the first argument, with coefficients of one sign: terms are counted by running it on ones."""
    rest = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    ones = op.func(torch.ones_like(op.value(0)), *rest, **op.kwargs)

    def run(values: Tensor) -> Tensor:
        found = op.func(values, *rest, **op.kwargs)
        return (found[0] if isinstance(found, (tuple, list)) else found).abs()

    counts = (ones[0] if isinstance(ones, (tuple, list)) else ones).abs()
    whole = bool((counts == counts.round()).all())
    terms = int(counts.max()) if whole else op.args[0].numel()
    carried = run(op.errors[0]) if 0 in op.errors else None
    if whole and terms <= 1:
        return carried, 0
    return (0.0 if carried is None else carried) + terms * op.unit * run(op.value(0).abs()), terms


for _name in (
    "replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward", "trace",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward", "embedding_dense_backward",
    "constant_pad_nd_backward", "col2im", "unfold_backward", "_embedding_bag_backward",
    "_embedding_bag_dense_backward", "nansum",
    "upsample_nearest1d_backward", "upsample_nearest2d_backward", "upsample_nearest3d_backward",
    "_upsample_nearest_exact1d_backward", "_upsample_nearest_exact2d_backward", "_upsample_nearest_exact3d_backward",
):  # fmt: skip
    RULES[_name] = summed


@rule("_embedding_bag")
def _bagged(op: Operation) -> tuple[Any, int]:
    """Sums or means of as many rows as a bag holds."""
    terms = op.args[1].numel() + 1
    carried = op.func(op.errors[0], *op.args[1:], **op.kwargs)[0] if 0 in op.errors else 0.0
    return carried + terms * op.unit * op.func(op.value(0).abs(), *op.args[1:], **op.kwargs)[0].abs(), terms


@rule("index_put", "scatter_add", "index_add", "put", "_index_put_impl", "_unsafe_index_put")
def _added_at(op: Operation) -> tuple[Any, int]:
    """Values added to, or put into, places of a tensor; terms are counted by adding ones."""
    floating = [i for i, a in enumerate(op.args) if isinstance(a, Tensor) and a.is_floating_point()]

    def run(values: dict[int, Tensor]) -> Tensor:
        zeros = {i: torch.zeros_like(op.value(i)) for i in floating}
        given = {i: t.clone().contiguous() for i, t in (zeros | values).items()}
        return op.func(*(given.get(i, a) for i, a in enumerate(op.args)), **op.kwargs)

    terms = int(run({i: torch.ones_like(op.value(i)) for i in floating}).max())
    carried = run({i: e for i, e in op.errors.items() if isinstance(i, int)}) if op.errors else None
    scaled = float(op.kwargs.get("alpha", 1)) != 1
    if terms <= 1 and not scaled:
        return carried, 0
    own = (terms + scaled) * op.unit * run({i: op.value(i).abs() for i in floating})
    return own if carried is None else carried.abs() + own, terms


@rule("scatter_reduce")
def _reduced_at(op: Operation) -> tuple[Any, int]:
    """Sums at places; or means of them, with a division; or the largest, or the smallest."""
    how = str(op.args[4])
    if how == "sum":
        return _added_at(op)
    if how not in ("mean", "amax", "amin"):
        raise ValueError("products at places aren't known")
    values = {i: op.value(i) for i in (0, 3)}
    errors = {i: op.errors.get(i, torch.zeros_like(v)) for i, v in values.items()}

    def run(both: dict[int, Tensor], how: str) -> Tensor:
        return op.func(both[0].clone(), op.args[1], op.args[2], both[3].clone(), how, **op.kwargs)

    if how != "mean":
        return run(errors, "amax"), 0
    terms = int(run({i: torch.ones_like(v) for i, v in values.items()}, "sum").max()) + 1
    return run(errors, "mean") + terms * op.unit * run({i: v.abs() for i, v in values.items()}, "mean"), terms
