"""The error bounds of softmax, sums of exponentials and attention, forward and backward, to first order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import Formula, Operation
from parity.bounds.torch_rounding_functions import argument, formula
from parity.bounds.torch_rounding_rules import RULES, rule

# Roundings of an exponential and of the sum that it is divided by, where PyTorch's attention computes in float32: its
# exponential there, `exp_u20` of aten/src/ATen/cpu/vec/vec512/vec512_float.h, is one of 20 ulp, 40 u.
_FAST_EXPONENTIAL = 80


def _finite(tensor: Tensor) -> Tensor:
    return torch.where(torch.isfinite(tensor), tensor, torch.zeros_like(tensor))


@rule("_softmax", "_log_softmax", "_safe_softmax")
def _softmax(op: Operation) -> tuple[Any, int]:
    """exp(x - max) over its sum of m terms.

    The subtraction's rounding is relative to |x| + |max|; that of one term counts in the sum with its probability, so
    what a mask of -1e9 or of minus infinity puts out has none.
    """
    x, dim = op.value(0), int(op.args[1])
    terms = x.shape[dim]
    finite = _finite(x)
    error = _finite(op.errors[0]) if 0 in op.errors else 0.0
    y = op.output.double()
    chances = torch.exp(y) if op.name == "_log_softmax" else y
    largest = _finite(x.amax(dim, keepdim=True)).abs()
    spread = (finite.abs() + largest) * op.unit + error
    inside = spread + (chances * spread).sum(dim, keepdim=True) + (2 * ELEMENTARY + terms) * op.unit
    if op.name == "_log_softmax":
        return inside + (ELEMENTARY + 1) * op.rounded, terms + ELEMENTARY + 3
    return y * inside + 2 * op.rounded, terms + ELEMENTARY + 3


@rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(op: Operation) -> tuple[Any, int]:
    """Gives y (g - sum(g y)) of a softmax y; g - exp(y) sum(g) of a logarithm y of one."""
    g, y, dim = op.value(0), op.value(1), int(op.args[2])
    terms = g.shape[dim]
    error, of_y = op.error(0), op.error(1)
    if op.name == "_softmax_backward_data":
        total = (y * g.abs()).sum(dim, keepdim=True)
        own = (terms + ELEMENTARY + 2) * op.unit * y * (g.abs() + total)
        carried = y * error + y * (y * error).sum(dim, keepdim=True) if isinstance(error, Tensor) else 0.0
        if isinstance(of_y, Tensor):
            carried = carried + of_y * (g.abs() + total) + y * (g.abs() * of_y).sum(dim, keepdim=True)
        return own + carried, terms + ELEMENTARY + 2
    chances, total = y.exp(), g.abs().sum(dim, keepdim=True)
    own = op.unit * (g.abs() + (terms + ELEMENTARY + 2) * chances * total)
    carried = error + chances * error.sum(dim, keepdim=True) if isinstance(error, Tensor) else 0.0
    spread = chances * _finite(of_y) * total if isinstance(of_y, Tensor) else 0.0
    return own + carried + spread, terms + ELEMENTARY + 2


def _log_sum_exp(op: Operation) -> Formula:
    dims, keep = op.args[1], bool(argument(op, 2, "keepdim", False))

    def written(x: Tensor) -> Tensor:
        top = x.amax(dims, keepdim=True)
        total = torch.log(torch.exp(x - top).sum(dims, keepdim=True)) + top
        return total if keep else total.sum(dims)  # of one term

    return written


RULES["logsumexp"] = formula(_log_sum_exp, 0)


def _scores(op: Operation, causal: bool, q: Tensor, k: Tensor, mask: Any) -> tuple[Tensor, float]:
    """Probabilities of keys for each query, and the scale of the scores."""
    scale = op.kwargs.get("scale")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    scores = (q @ k.transpose(-2, -1)) * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1), scale


def _places(op: Operation, *places: int) -> tuple[int | str, ...]:
    return (*places, "attn_mask") if isinstance(op.kwargs.get("attn_mask"), Tensor) else places


def _for_all(q: Tensor, x: Tensor) -> Tensor:
    """Keys or values of every head, where several queries share one; (N, heads, T, features)."""
    times = q.shape[1] // x.shape[1]
    return x if times == 1 else x.unsqueeze(2).expand(-1, -1, times, -1, -1).flatten(1, 2)


def _of_groups(x: Tensor, groups: int) -> Tensor:
    """Gradients of what several heads share: added up."""
    return x if x.shape[1] == groups else x.unflatten(1, (groups, -1)).sum(2)


@rule("_scaled_dot_product_flash_attention_for_cpu")
def _attention(op: Operation) -> tuple[Any, int]:
    causal = bool(argument(op, 4, "is_causal", False))

    def written(q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> Tensor:
        k, v = _for_all(q, k), _for_all(q, v)
        return _scores(op, causal, q, k, mask)[0] @ v

    errors, depth = op.cost(written, *_places(op, 0, 1, 2))
    if op.args[0].dtype == torch.float64:
        return errors, depth
    q, k, v = (op.value(i) for i in range(3))
    k, v = _for_all(q, k), _for_all(q, v)
    chances, _ = _scores(op, causal, q, k, op.kwargs.get("attn_mask"))
    return [_plus(errors[0], _FAST_EXPONENTIAL * op.unit * (chances @ v.abs()))], depth + _FAST_EXPONENTIAL


@rule("_scaled_dot_product_flash_attention_for_cpu_backward")
def _attention_backward(op: Operation) -> tuple[Any, int]:
    """With P the probabilities: to v, P^T g; to the scores, P (g v^T - sum(g o)), o the output."""
    causal = bool(op.args[7])

    def written(g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> Any:
        groups = k.shape[1]
        k, v = _for_all(q, k), _for_all(q, v)
        chances, scale = _scores(op, causal, q, k, mask)
        to_values = chances.transpose(-2, -1) @ g
        to_chances = g @ v.transpose(-2, -1)
        along = (g * (chances @ v)).sum(-1, keepdim=True)
        to_scores = chances * (to_chances - along)
        to_keys = (to_scores.transpose(-2, -1) @ q) * scale
        return (to_scores @ k) * scale, _of_groups(to_keys, groups), _of_groups(to_values, groups)

    errors, depth = op.cost(written, *_places(op, 0, 1, 2, 3))
    if op.args[0].dtype == torch.float64:
        return errors, depth
    g, q, k, v = (op.value(i) for i in range(4))
    groups = k.shape[1]
    k, v = _for_all(q, k), _for_all(q, v)
    chances, scale = _scores(op, causal, q, k, op.kwargs.get("attn_mask"))
    reached = g.abs() @ v.abs().transpose(-2, -1)
    to_scores = chances * (reached + (chances * reached).sum(-1, keepdim=True)) * abs(scale)
    more = to_scores @ k.abs(), to_scores.transpose(-2, -1) @ q.abs(), chances.transpose(-2, -1) @ g.abs()
    more = more[0], _of_groups(more[1], groups), _of_groups(more[2], groups)
    own = [_FAST_EXPONENTIAL * op.unit * m for m in more]
    return [_plus(e, m) for e, m in zip(errors, own, strict=True)], depth + _FAST_EXPONENTIAL


def _plus(error: Any, more: Tensor) -> Tensor:
    return more if error is None else error + more


@rule("_native_multi_head_attention")
def _multi_head(op: Operation) -> tuple[Any, int]:
    """Projections to heads, attention in each, and a projection back: what runs in evaluation without gradients."""
    if len(op.args) > 9 and op.args[9] is not None:
        raise ValueError("masks of the fast path aren't known")
    given: list[Any] = list(op.args)
    width, heads = int(given[3]), int(given[4])

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)

    def written(q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
        projected = []
        for x, rows, offset in zip((q, k, v), w.split(width), b.split(width), strict=True):
            projected.append(split(x @ rows.mT + offset))
        scores = (projected[0] @ projected[1].transpose(-2, -1)) * (1 / math.sqrt(width // heads))
        mixed = (torch.softmax(scores, -1) @ projected[2]).transpose(1, 2)
        return mixed.reshape(q.shape[0], q.shape[1], width) @ w_out.mT + b_out

    return op.cost(written, 0, 1, 2, 5, 6, 7, 8)
