"""The error bounds of resizing by cubic curves and of sampling at given places, forward and backward, to first order.

As in `torch_rounding_resampling`: a place errs by some roundings relative to the picture's side, and weights with it.
Cubic weights may be negative: along an axis their absolute values add up to at most 1.5 (a = -0.75), their slopes to 4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_rules import RULES

_WEIGHTS = 1.5**2
_SLOPE = 4.0
_PLACE = 6  # roundings of a place, relative to a side


def _weights(op: Operation, inner: list[int], outer: list[int], axis: int) -> Tensor:
    """|weights| of an axis, (outer, inner): what the operation makes of unit vectors along it."""
    name = op.name.removesuffix("_backward")
    function = getattr(torch.ops.aten, name).default
    n, m = inner[axis], outer[axis]
    backward = op.name.endswith("_backward")
    settings = list(op.args[3:] if backward else op.args[2:])  # align_corners, scales
    settings = [settings[0], *(settings[1 + i] if i < len(settings) - 1 else None for i in range(2))]
    units = torch.eye(n, dtype=torch.float64)
    x = units.reshape(1, n, n, 1) if axis == 0 else units.reshape(1, n, 1, n)
    settings[2 - axis] = None  # of the other axis
    found = function(x, [m, 1] if axis == 0 else [1, m], *settings)
    return found.reshape(n, m).T.abs()


def _touched(weights: Tensor) -> Tensor:
    """1 where a pixel counts, or one of two beside it does: a place that errs may reach there."""
    return F.max_pool1d((weights > 0).double().unsqueeze(1), 5, 1, 2).squeeze(1)


def _cubic(op: Operation) -> tuple[Any, int]:
    """Sums of pixels around a place; backward, of the shares of all that a pixel is part of."""
    x = op.value(0).abs()
    backward = op.name.endswith("_backward")
    here, there = list(x.shape[2:]), list(op.output.shape[2:])
    inner, outer = (there, here) if backward else (here, there)
    rows, columns = (_weights(op, inner, outer, axis) for axis in (0, 1))

    def run(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return rows.T @ values @ columns if backward else rows @ values @ columns.T

    counts = [int(((w > 0).sum(0 if backward else 1)).max()) for w in (rows, columns)]
    terms = counts[0] * counts[1] + 12
    shifted = inner[0] * run(x, _touched(rows), columns) + inner[1] * run(x, rows, _touched(columns))
    own = op.unit * (terms * run(x, rows, columns) + _SLOPE * _PLACE * shifted)
    carried = run(op.errors[0], rows, columns) if 0 in op.errors else 0.0
    return own + carried, terms


for _name in ("upsample_bicubic2d", "_upsample_bicubic2d_aa"):
    RULES[_name] = _cubic
    RULES[f"{_name}_backward"] = _cubic


def _near(x: Tensor, reach: int) -> Tensor:
    """The largest value within `reach` pixels."""
    return F.max_pool2d(x, 2 * reach + 1, 1, reach)


def _around(op: Operation, x: Tensor, grid: Tensor) -> Tensor:
    """The largest value around each place that is sampled, wherever it lies."""
    widened = F.pad(_near(F.pad(x, (2, 2, 2, 2)), 3), (1, 1, 1, 1), mode="replicate")
    side = torch.tensor([x.shape[3] / widened.shape[3], x.shape[2] / widened.shape[2]], dtype=torch.float64)
    return F.grid_sample(widened, grid * side, mode="nearest", padding_mode="border", align_corners=False)


def _place(op: Operation, grid: Tensor, sides: tuple[int, int], error: Any) -> Tensor:
    """By how much a place errs, in pixels, both axes together."""
    size = torch.tensor([sides[1], sides[0]], dtype=torch.float64)
    apart = 0.5 * size * error if isinstance(error, Tensor) else 0.0
    return (4 * op.unit * size * (grid.abs() + 1) + apart).sum(-1)


def _sampled(op: Operation) -> tuple[Any, int]:
    if int(op.args[3]) == 2:  # reflected
        raise ValueError("places that are reflected aren't known")
    x, grid = op.value(0).abs(), op.value(1)
    near = _around(op, x, grid)
    place = _place(op, grid, (x.shape[2], x.shape[3]), op.error(1)).unsqueeze(1)
    weights = 1.0 if int(op.args[2]) < 2 else _WEIGHTS
    slope = (0.0, 0.0, _SLOPE)[int(op.args[2])] or 2.0
    own = near * (24 * op.unit * weights + 2 * slope * place)
    carried = weights * _around(op, op.errors[0], grid) if 0 in op.errors else 0.0
    return own + carried, 24


def _sampled_backward(op: Operation) -> tuple[Any, int]:
    """To the picture, each place's share; to the grid, the slopes of what lies around a place."""
    if int(op.args[3]) == 2 or int(op.args[4]) == 2:
        raise ValueError("only bilinear and nearest sampling are known")
    g, x, grid = (op.value(i) for i in range(3))
    sides = x.shape[2], x.shape[3]
    place = _place(op, grid, (int(sides[0]), int(sides[1])), op.error(2))
    rest = op.args[3:]

    def spread(values: Tensor) -> Tensor:
        return op.func(values, x, grid, *rest)[0]

    def around(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 3, 1, 1, divisor_override=1)

    count = float(spread(torch.ones_like(g)).max()) * 4 + 8
    own = around(spread(g.abs() * (2 * place.unsqueeze(1) + count * op.unit)))
    carried = spread(op.errors[0]) if 0 in op.errors else 0.0
    near = _around(op, x.abs(), grid)
    half = torch.tensor([sides[1], sides[0]], dtype=torch.float64) / 2
    slopes = (g.abs() * near).sum(1).unsqueeze(-1) * half
    to_grid = slopes * ((24 + 2 * g.shape[1]) * op.unit + 4 * place.unsqueeze(-1))
    if 0 in op.errors:
        to_grid = to_grid + 2 * (op.errors[0] * near).sum(1).unsqueeze(-1) * half
    if 1 in op.errors:
        to_grid = to_grid + 2 * (g.abs() * _around(op, op.errors[1], grid)).sum(1).unsqueeze(-1) * half
    return [own + carried, to_grid], math.ceil(count)


RULES["grid_sampler_2d"], RULES["grid_sampler_2d_backward"] = _sampled, _sampled_backward
