"""Planted bugs in precision: one side computes with fewer bits than it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity.mutants import planting
from parity.mutants.mutant import (
    SMALL,
    Mutant,
    on_both_sides,
    patch,
)
from parity.pairs import Pair


def precision_mutants() -> Iterator[Mutant]:
    """One side computes with fewer bits than it says."""
    for side in ("jax", "torch"):
        yield Mutant(
            f"28-tf32-{side}", 28, "TF32 on one side", side, "caffe_alexnet", None, "layers", ("conv1",), ("tf32",),
            planting.nothing, dtype="float32", needs="a GPU with TF32",
        )  # fmt: skip
    yield from on_both_sides(
        46, "tf32-emulated", "inputs of conv1 rounded to TF32's 10 bits", "caffe_alexnet", SMALL, "conv1", "tf32",
        jax=patch("jax_alexnet.ops.convolution", "conv", _coarse_conv),
        torch=lambda pair: planting.torch_module(pair, "conv1", _coarse),  # type: ignore[arg-type]
        dtype="float32",
    )  # fmt: skip
    yield from on_both_sides(
        29, "bfloat16-sum", "sums of fully connected layers accumulated in bfloat16", "caffe_alexnet", (167, 167),
        "fc6", (),
        jax=patch("jax_alexnet.layers", "Dense", _coarse_sum), torch=_torch_coarse_sum, dtype="bfloat16",
    )  # fmt: skip


def _round_torch(x: Tensor) -> Tensor:
    """TF32 keeps 10 bits of the mantissa: half of the last kept one is added, then the rest is cut."""
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).to(x.dtype)


class CoarseConv(nn.Conv2d):
    """A convolution of inputs and weights that were rounded to TF32."""

    def forward(self, input: Tensor) -> Tensor:
        """Round, then convolve."""
        if input.dtype != torch.float32:  # the bound's float64 runs of the layer
            return super().forward(input)
        weight = _round_torch(self.weight)
        return F.conv2d(_round_torch(input), weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _coarse(child: nn.Module) -> None:
    child.__class__ = CoarseConv


def _coarse_conv(conv: Any) -> Any:
    def rounded(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, jnp.int32)
        return jax.lax.bitcast_convert_type((bits + 0x1000) & ~0x1FFF, jnp.float32)

    def coarse(x: jax.Array, kernel: jax.Array, **settings: Any) -> jax.Array:
        if kernel.shape[0] == 11:
            x, kernel = rounded(x), rounded(kernel)
        return conv(x, kernel, **settings)

    return coarse


def _coarse_sum(original: Any) -> Any:
    class CoarseDense(original):
        """A fully connected layer whose running sum is kept in bfloat16, sixteen products at a time."""

        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            """Add up sixteen products at a time."""
            x = x.reshape(x.shape[0], -1)
            inputs = x.shape[1]
            kernel, bias = self.weights(x, (inputs, self.features), (self.features,), inputs)
            total = jnp.zeros((x.shape[0], self.features), x.dtype)
            for i in range(0, inputs, 16):
                total = total + x[:, i : i + 16] @ kernel[i : i + 16]
            return total + bias

    return CoarseDense


class CoarseLinear(nn.Linear):
    """A fully connected layer whose running sum is kept in bfloat16, sixteen products at a time."""

    def forward(self, input: Tensor) -> Tensor:
        """Add up sixteen products at a time."""
        if input.dtype != torch.bfloat16:
            return super().forward(input)
        total = torch.zeros(input.shape[0], self.out_features, dtype=input.dtype)
        for i in range(0, self.in_features, 16):
            total = total + input[:, i : i + 16] @ self.weight[:, i : i + 16].T
        return total + self.bias


def _torch_coarse_sum(pair: Pair) -> Pair:
    def change(child: nn.Module) -> None:
        child.__class__ = CoarseLinear

    for name in ("fc6", "fc7", "fc8"):
        pair = planting.torch_module(pair, name, change)  # type: ignore[arg-type]
    return pair
