"""Planted bugs in precision: one side computes with fewer bits than it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity.alexnet.pairs import Pair
from parity.mutants import planting
from parity.mutants.mutant import (
    SMALL,
    Mutant,
    on_both_sides,
    patch,
    turned_into,
)
from torch_ref.layers import ClippedAvgPool2d
from torch_ref.lrn import SpatialResponseNorm


def precision_mutants() -> Iterator[Mutant]:
    """One side computes with fewer bits than it says."""
    for side in ("jax", "torch"):
        yield Mutant(
            f"28-tf32-{side}",
            28,
            "TF32 on one side",
            side,
            "caffe_alexnet",
            None,
            "layers",
            ("conv1",),
            ("tf32",),
            planting.nothing,
            dtype="float32",
            needs="a GPU with TF32",
        )
    yield from on_both_sides(
        46,
        "tf32-emulated",
        "inputs of conv1 rounded to TF32's 10 bits",
        "caffe_alexnet",
        SMALL,
        "conv1",
        "tf32",
        jax=patch("jax_alexnet.ops.convolution", "conv", _coarse_conv),
        torch=lambda pair: planting.torch_module(pair, "conv1", _coarse),
        dtype="float32",
    )
    yield from on_both_sides(
        29,
        "bfloat16-sum",
        "sums of fully connected layers accumulated in bfloat16",
        "caffe_alexnet",
        (167, 167),
        "fc6",
        (),
        jax=patch("jax_alexnet.layers", "Dense", _coarse_sum),
        torch=_torch_coarse_sum,
        dtype="bfloat16",
    )


def cast_mutants() -> Iterator[Mutant]:
    """Layers of a float64 run that see fewer bits on the way."""
    title, cifar = "the input of one norm goes through float32", partial(on_both_sides, model="cifar_18pct", size=None)
    jax, torch = patch("jax_alexnet.layers", "Norm", _jax_cast_input), _torch_layer("rnorm1", CastNorm)
    yield from cifar(55, "float32-input", title, layers="rnorm1", causes="float32", jax=jax, torch=torch)
    title = "the kernel of one convolution goes through float32"
    jax, torch = patch("jax_alexnet.layers", "Conv", _jax_cast_kernel), _torch_layer("conv2", CastKernel)
    yield from cifar(56, "float32-weight", title, layers="conv2", causes="float32", jax=jax, torch=torch)
    title = "the result of one pool goes through float16"
    jax, torch = patch("jax_alexnet.layers", "Pool", _jax_cast_result), _torch_layer("pool3", CastPool)
    yield from cifar(57, "float16-result", title, layers="pool3", causes="float16", jax=jax, torch=torch)


def _torch_layer(name: str, module_class: type[nn.Module]) -> Callable[[Pair], Pair]:
    return lambda pair: planting.torch_module(pair, name, turned_into(module_class))


def _jax_cast_input(original: Any) -> Any:
    class Cast(original):
        """A norm that works on float32 values in rnorm1."""

        def __call__(self, x: jax.Array) -> jax.Array:
            return super().__call__(x.astype(jnp.float32).astype(x.dtype) if self.layer.name == "rnorm1" else x)

    return Cast


def _jax_cast_kernel(original: Any) -> Any:
    class Cast(original):
        """A convolution with a float32 kernel in conv2."""

        def weights(self, *args: Any, **kwargs: Any) -> Any:
            kernel, bias = super().weights(*args, **kwargs)
            return (kernel.astype(jnp.float32).astype(kernel.dtype) if self.layer.name == "conv2" else kernel), bias

    return Cast


def _jax_cast_result(original: Any) -> Any:
    class Cast(original):
        """A pool whose result is rounded to float16 in pool3."""

        def __call__(self, x: jax.Array) -> jax.Array:
            y = super().__call__(x)
            return y.astype(jnp.float16).astype(y.dtype) if self.layer.name == "pool3" else y

    return Cast


class CastNorm(SpatialResponseNorm):
    """A norm that works on float32 values."""

    def forward(self, x: Tensor) -> Tensor:
        """Cast there and back, then normalise."""
        return super().forward(x.float().to(x.dtype))


class CastKernel(nn.Conv2d):
    """A convolution with a float32 kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """Cast the kernel there and back, then convolve."""
        return self._conv_forward(input, self.weight.float().to(self.weight.dtype), self.bias)


class CastPool(ClippedAvgPool2d):
    """A pool whose result is rounded to float16."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool, then cast there and back."""
        return super().forward(x).half().to(x.dtype)


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
        pair = planting.torch_module(pair, name, change)
    return pair
