"""The error bounds of batch, layer and group normalisation, forward and backward, to first order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parity.bounds.magnitudes import ELEMENTARY
from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_rules import RULES


def _per_channel(values: Any, x: Tensor) -> Any:
    """A weight for each channel, to be multiplied with a map; None as it is."""
    return None if values is None else values.view([1, -1] + [1] * (x.ndim - 2))


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.ndim) if d != 1)


def _batch_norm(op: Operation) -> tuple[Any, int]:
    """(x - mean) rsqrt(variance + eps) weight + bias, with running statistics or the batch's own."""
    x = op.value(0)
    if op.name == "_native_batch_norm_legit" or (op.name == "native_batch_norm" and op.args[5]):
        eps = float(next(a for a in reversed(op.args) if isinstance(a, float)))
        normal = _standardized(x, _all_but_channels(x), eps, op.unit, op.error(0))
        weight, bias = (_per_channel(op.value(i), x) for i in (1, 2))
        gain, offset = 1.0 if weight is None else weight.abs(), 0.0 if bias is None else bias.abs()
        # The statistics that come with it are used by nothing but its own backward pass, which has errors of its own.
        error = gain * normal.error + 2 * op.unit * (op.output.double().abs() + offset)
        return [error, None, None], normal.terms + ELEMENTARY + 5
    weight, bias, mean, variance = (op.value(i) for i in range(1, 5))
    shape = [1, -1] + [1] * (x.ndim - 2)
    eps = float(next(a for a in reversed(op.args) if isinstance(a, float)))
    gain = ((1 if weight is None else weight) * torch.rsqrt(variance + eps)).abs().view(shape)
    offset = 0.0 if bias is None else bias.abs().view(shape)
    terms = gain * (x.abs() + mean.abs().view(shape))
    return gain * op.error(0) + op.unit * ((ELEMENTARY + 6) * terms + 2 * offset), ELEMENTARY + 6


def _batch_norm_backward(op: Operation) -> tuple[Any, int]:
    """To the input, g weight rsqrt(variance + eps); its sums with x - mean, and alone, for weight and bias."""
    g, x, weight, mean, variance = (op.value(i) for i in range(5))
    if op.args[7]:
        dims = _all_but_channels(x)
        return _standard_backward(op, x, dims, float(op.args[8]), _per_channel(weight, x), list(dims))
    eps = float(next(a for a in reversed(op.args) if isinstance(a, float)))
    shape = [1, -1] + [1] * (x.ndim - 2)
    dims = [d for d in range(x.ndim) if d != 1]
    terms = x.numel() // x.shape[1]
    invstd = torch.rsqrt(variance + eps).view(shape)
    gain = invstd if weight is None else invstd * weight.abs().view(shape)
    own = g.abs() * op.unit
    rounded = ELEMENTARY + 6
    to_input = gain * (op.error(0) + rounded * own)
    centred = (x.abs() + mean.abs().view(shape)) * invstd
    to_weight = (centred * (op.error(0) + (terms + rounded) * own)).sum(dims)
    to_bias = (op.error(0) + terms * own).sum(dims)
    return [to_input, to_weight, to_bias], terms + rounded


@dataclass(frozen=True)
class _Normalized:
    """Standardised values of groups of m terms, with the errors of computing them."""

    value: Tensor
    error: Tensor
    scale: Tensor
    scale_error: Tensor
    terms: int


def _standardized(x: Tensor, dims: tuple[int, ...], eps: float, unit: float, incoming: Any) -> _Normalized:
    """(x - mean) / sqrt(variance + eps) over `dims`.

    The errors of mean and variance are relative to the mean of |x| and of squares: E[x^2] - E[x]^2, which Flax
    computes, cancels where the mean is large beside the deviation.
    """
    terms = math.prod(x.shape[d] for d in dims)
    mean = x.mean(dims, keepdim=True)
    scale = torch.rsqrt(x.var(dims, unbiased=False, keepdim=True) + eps)
    error = incoming if isinstance(incoming, Tensor) else torch.zeros_like(x)
    mean_error = error.mean(dims, keepdim=True) + terms * unit * x.abs().mean(dims, keepdim=True)
    squares = (x**2).mean(dims, keepdim=True)
    variance_error = 2 * (x.abs() * error).mean(dims, keepdim=True) + 2 * (terms + 3) * unit * squares
    scale_error = scale * (0.5 * variance_error * scale**2 + (ELEMENTARY + 1) * unit)
    value = (x - mean) * scale
    own = scale * (error + mean_error + 2 * unit * (x.abs() + mean.abs()))
    return _Normalized(value, own + (x - mean).abs() * scale_error + 2 * unit * value.abs(), scale, scale_error, terms)


def _grouped(op: Operation, x: Tensor, first: int) -> tuple[Tensor, tuple[int, ...]]:
    """Values as (groups, terms) of layer or group normalisation; `first` is the place of its settings."""
    if "layer" in op.name:
        return x, tuple(range(-len(op.args[first]), 0))
    groups = op.args[first + 3]
    return x.reshape(x.shape[0], groups, -1), (-1,)


def _affine(op: Operation, weight: Any, x: Tensor) -> Any:
    if weight is None:
        return None
    return weight if "layer" in op.name else weight.view([1, -1] + [1] * (x.ndim - 2))


def _layer_norm(op: Operation) -> tuple[Any, int]:
    x = op.value(0)
    layer = "layer" in op.name
    grouped, dims = _grouped(op, x, 1 if layer else 3)
    weight, bias = (_affine(op, op.value(i), x) for i in ((2, 3) if layer else (1, 2)))
    incoming = op.error(0)
    incoming = incoming.reshape(grouped.shape) if isinstance(incoming, Tensor) else 0.0
    normal = _standardized(grouped, dims, op.args[4 if layer else 7], op.unit, incoming)
    gain = 1.0 if weight is None else weight.abs()
    offset = 0.0 if bias is None else bias.abs()
    error = gain * normal.error.reshape(x.shape) + 2 * op.unit * (op.output.double().abs() + offset)
    return error, normal.terms + ELEMENTARY + 5


def _layer_norm_backward(op: Operation) -> tuple[Any, int]:
    """That of layer or group normalisation; see `_standard_backward`."""
    x = op.value(1)
    layer = "layer" in op.name
    grouped, dims = _grouped(op, x, 2 if layer else 5)
    # eps isn't passed backward; 1 / sqrt(variance + eps) is, in few bits in half precision: the smallest variance hides
    # eps least. Beside another one it may well come out as nothing, which leaves values that are all alike no bound.
    variance = grouped.var(dims, unbiased=False).reshape(-1)
    least = int(variance.argmin())
    eps = float(op.value(4 if layer else 3).reshape(-1)[least] ** -2 - variance[least])
    weight = _affine(op, op.value(5 if layer else 4), x)
    kept = [d for d in range(x.ndim) if (d < x.ndim - len(dims) if layer else d != 1)]
    return _standard_backward(op, grouped, dims, max(eps, 0.0), weight, kept)


def _standard_backward(
    op: Operation, grouped: Tensor, dims: tuple[int, ...], eps: float, weight: Any, kept: list[int]
) -> tuple[Any, int]:
    """Gradient scale (h - mean(h) - z mean(h z)), h = weight g, z the standardised input; sums for the weights.

    Args:
        op: whose first two arguments are the gradient and the input.
        grouped: the input, in the shape in which it is standardised over `dims`.
        dims: see `grouped`.
        eps: that is added to the variance.
        weight: of the input's rank; None if there is none.
        kept: dimensions over which the gradients of weight and bias are summed.
    """
    g, x = op.value(0), op.value(1)
    normal = _standardized(grouped, dims, eps, op.unit, op.error(1).reshape(grouped.shape) if 1 in op.errors else 0.0)
    gain = 1.0 if weight is None else weight.abs()
    z, z_error = normal.value.abs(), normal.error
    h = (gain * g.abs()).reshape(grouped.shape)
    h_error = (gain * (op.error(0) + op.unit * g.abs())).reshape(grouped.shape)

    def spread(a: Tensor, b: Tensor) -> Tensor:
        return a + a.mean(dims, keepdim=True) + z * (b * z).mean(dims, keepdim=True)

    total = spread(h, h)
    rounded = (normal.terms + 6) * op.unit
    shaken = z_error * (h * z).mean(dims, keepdim=True) + z * (h * z_error).mean(dims, keepdim=True)
    error = normal.scale * (spread(h_error, h_error) + rounded * total + shaken) + normal.scale_error * total
    full_z, full_error = (t.reshape(x.shape) for t in (z, z_error))
    count = math.prod(x.shape[d] for d in kept)
    own = op.error(0) + (count + 2) * op.unit * g.abs()
    to_weight = (full_z * own + full_error * g.abs()).sum(kept)
    return [error.reshape(x.shape), to_weight, own.sum(kept)], normal.terms + count + ELEMENTARY + 6


for _name in (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "_batch_norm_no_update",
    "_native_batch_norm_legit",
):
    RULES[_name] = _batch_norm
RULES["native_batch_norm_backward"] = _batch_norm_backward
for _name in ("native_layer_norm", "native_group_norm"):
    RULES[_name] = _layer_norm
    RULES[f"{_name}_backward"] = _layer_norm_backward
