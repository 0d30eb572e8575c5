"""The error bounds of resizing with weights (linear, bilinear, trilinear), forward and backward, to first order.

A weight is a distance between places that are rounded relative to the picture's side: for a side of n pixels it errs
by at most 8 n u, and by that much a neighbour counts that should not. So what is rounded is relative to the
neighbourhood's largest value.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_rules import RULES

_POOLS = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}


def _widened(magnitude: Tensor) -> Tensor:
    """The largest value of each pixel and its neighbours."""
    return _POOLS[magnitude.ndim](magnitude, 3, 1, 1)


def _factor(op: Operation, pixels: list[int], outputs: list[int]) -> int:
    # With antialiasing a window holds 2 n / m pixels a side; else 2.
    terms = math.prod(2 * max(1, math.ceil(n / m)) + 1 for n, m in zip(pixels, outputs, strict=True))
    return terms + 8 * max(*pixels, *outputs) * len(pixels)


def _resized(op: Operation) -> tuple[Any, int]:
    x = op.value(0).abs()
    n = _factor(op, list(x.shape[2:]), list(op.output.shape[2:]))
    carried = op.func(op.errors[0], *op.args[1:], **op.kwargs) if 0 in op.errors else 0.0
    return carried + n * op.unit * op.func(_widened(x), *op.args[1:], **op.kwargs), n


def _resized_backward(op: Operation) -> tuple[Any, int]:
    g = op.value(0).abs()
    outputs, pixels = list(g.shape[2:]), list(op.output.shape[2:])
    shares = math.prod(2 * math.ceil(m / n) + 1 for n, m in zip(pixels, outputs, strict=True))  # that a pixel sums
    n = _factor(op, pixels, outputs) + shares
    carried = op.func(op.errors[0], *op.args[1:], **op.kwargs) if 0 in op.errors else 0.0
    return carried + n * op.unit * _widened(op.func(g, *op.args[1:], **op.kwargs)), n


for _name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa"):
    RULES[_name] = _resized
    RULES[f"{_name}_backward"] = _resized_backward
