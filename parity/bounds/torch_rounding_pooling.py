"""The error bounds of pooling, over windows or whole axes, forward and backward, to first order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_moves import summed
from parity.bounds.torch_rounding_rules import RULES, rule


@rule(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "max_pool2d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "amax",
    "max",
    "cummax",
)
def _maximum(op: Operation) -> tuple[Any, int]:
    """|max(a + e) - max(a)| <= max |e| over the window."""
    if 0 not in op.errors:
        return None, 0
    result = op.func(op.errors[0], *op.args[1:], **op.kwargs)
    return (result[0] if isinstance(result, (tuple, list)) else result), 0


for _name in (
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d_backward",
    "max_unpool2d",
):
    RULES[_name] = summed


@rule("avg_pool2d_backward", "_adaptive_avg_pool2d_backward", "avg_pool3d_backward", "_adaptive_avg_pool3d_backward")
def _scattered(op: Operation) -> tuple[Any, int]:
    """Each pixel sums the shares of the windows that hold it."""
    rest = tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in op.args[1:])
    support = op.func(torch.ones_like(op.value(0)), *rest, **op.kwargs)
    overlaps = max(math.ceil(float(support.max() / support[support > 0].min())), 1) + 1
    carried = op.func(op.errors[0], *rest, **op.kwargs) if 0 in op.errors else 0.0
    return carried + overlaps * op.unit * op.func(op.value(0).abs(), *rest, **op.kwargs), overlaps


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def _averaged(op: Operation) -> tuple[Any, int]:
    """A window of m terms: m - 1 roundings for the sum and one for the division."""
    x = op.value(0)
    terms = _window_terms(op)
    carried = op.func(op.errors[0], *op.args[1:], **op.kwargs) if 0 in op.errors else 0.0
    return carried + terms * op.unit * op.func(x.abs(), *op.args[1:], **op.kwargs), terms


def _window_terms(op: Operation) -> int:
    sizes = op.args[1]
    if "adaptive" not in op.name:
        spatial = op.args[0].ndim - 2
        return math.prod(sizes) if len(sizes) == spatial else int(sizes[0]) ** spatial
    # Window i of m over n pixels is [floor(i n / m), ceil((i + 1) n / m)).
    sides = op.args[0].shape[-len(sizes) :]
    return math.prod(
        max(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in zip(sides, sizes, strict=True)
    )
