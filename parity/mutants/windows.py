"""Planted bugs in padding, strides and pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.lax
import jax.numpy as jnp
import torch.nn.functional as F
from jax import lax
from torch import Tensor, nn

from parity.mutants import planting
from parity.mutants.mutant import (
    SMALL,
    Mutant,
    jax_row,
    on_both_sides,
    patch,
    torch_attributes,
    turned_into,
)
from torch_ref.layers import ClippedAvgPool2d


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: ceil(n / stride) positions, the odd zero at the end."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad, then convolve."""
        pads: list[int] = []
        for n, k, s in zip(reversed(input.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ZeroPool(nn.MaxPool2d):
    """Max pooling whose overhang holds zeros, not -inf."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad by what overhangs, then pool."""
        return F.max_pool2d(F.pad(x, (0, (x.shape[3] - 3) % 2, 0, (x.shape[2] - 3) % 2)), 3, 2)


class FullAverage(ClippedAvgPool2d):
    """Average pooling that divides by nine even where the window hangs over."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad by what overhangs, then average."""
        return F.avg_pool2d(F.pad(x, (0, (x.shape[3] - 3) % 2, 0, (x.shape[2] - 3) % 2)), 3, 2)


def _full_average(x: Any, window: int, stride: int, *, ceil: bool = False) -> Any:
    over = [(n - window) % stride for n in x.shape[1:3]]
    padded = jnp.pad(x, ((0, 0), (0, over[0]), (0, over[1]), (0, 0)))
    ones = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(padded, jnp.zeros((), x.dtype), lax.add, *ones, "VALID") / window**2


def _same_padding(conv: Any) -> Any:
    def padded(x: Any, kernel: Any, *, stride: int, **settings: Any) -> Any:
        if kernel.shape[0] != 11:
            return conv(x, kernel, stride=stride, **settings)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)

    return padded


def window_mutants() -> Iterator[Mutant]:
    """Padding, strides, sizes and rounding of windows."""
    yield from on_both_sides(
        16,
        "padding-same",
        "SAME for explicit padding",
        "caffe_alexnet",
        SMALL,
        "conv1",
        "padding_same",
        jax=patch("jax_alexnet.ops.convolution", "conv", _same_padding),
        torch=lambda pair: planting.torch_module(pair, "conv1", turned_into(Same)),
    )
    yield from _pool_mutants()
    yield from on_both_sides(
        37,
        "stride",
        "conv1 with stride 3 for 4",
        "caffe_alexnet",
        SMALL,
        "conv1",
        "stride",
        jax=jax_row("conv1", stride=3),
        torch=torch_attributes("conv1", stride=(3, 3)),
    )
    yield from on_both_sides(
        38,
        "pool-area",
        "average over the full window for the clipped one",
        "cifar_18pct",
        None,
        "pool2",
        "pool_area",
        jax=patch("jax_alexnet.ops.pooling", "average_pool", lambda _: _full_average),
        torch=lambda pair: planting.torch_module(pair, "pool2", turned_into(FullAverage)),
    )
    yield from on_both_sides(
        39,
        "padding",
        "conv2 padded by 1 for 2",
        "caffe_alexnet",
        SMALL,
        "conv2",
        "padding",
        jax=jax_row("conv2", padding=1),
        torch=torch_attributes("conv2", padding=(1, 1)),
    )


def _pool_mutants() -> Iterator[Mutant]:
    ceil: dict[str, Any] = {"jax": jax_row("pool1", ceil=True), "torch": torch_attributes("pool1", ceil_mode=True)}
    title = "pool in ceil mode"
    yield from on_both_sides(17, "pool-ceil", title, "one_weird_trick", (67, 67), "pool1", "ceil_mode", **ceil)
    yield from on_both_sides(
        17, "pool-ceil-exact", title, "one_weird_trick", (63, 63), "pool1", "ceil_mode", equivalent=True, **ceil
    )
    yield from on_both_sides(
        18,
        "pool-size",
        "pool 2x2 for 3x3",
        "caffe_alexnet",
        SMALL,
        "pool1",
        "pool_size",
        jax=jax_row("pool1", window=2),
        torch=torch_attributes("pool1", kernel_size=2),
    )
    yield from on_both_sides(
        19,
        "pool-zeros",
        "max pool padded with 0 for -inf",
        "cuda_convnet_2012",
        SMALL,
        "pool1",
        "pool_zero_padding",
        jax=patch("jax_alexnet.ops.pooling", "_lowest", lambda lowest: lambda dtype: 0.0),
        torch=lambda pair: planting.torch_module(pair, "pool1", turned_into(ZeroPool)),
    )
