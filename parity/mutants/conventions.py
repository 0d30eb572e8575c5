"""Planted bugs in gradients that random input or a layer by itself doesn't show: at zeros and ties, and on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jax_alexnet.ops import pooling
from parity.alexnet.pairs import Pair
from parity.mutants import planting
from parity.mutants.mutant import Mutant, on_both_sides, patch, turned_into


def convention_mutants() -> Iterator[Mutant]:
    """Gradients at exact zeros and ties, where random input never is."""
    title, cifar = "ReLU passes a gradient at exactly 0", partial(on_both_sides, model="cifar_18pct", size=None)
    jax, torch = patch("jax_alexnet.layers", "Relu", _maximum_relu), _torch_layer("relu3", PassingRelu)
    seen, cause = "relu3", "gradient_kink"
    yield from cifar(53, "relu-at-zero", title, layers=seen, causes=cause, stage="grads", jax=jax, torch=torch)
    title = "the last of equal maxima gets the gradient"
    jax, torch = patch("jax_alexnet.ops.pooling", "max_pool", _last_of_ties), _torch_layer("pool1", LastOfTies)
    seen, cause = "pool1", "gradient_ties"
    yield from cifar(54, "pool-ties", title, layers=seen, causes=cause, stage="grads", jax=jax, torch=torch)


def hook_mutants() -> Iterator[Mutant]:
    """Gradients that are right in the layer and changed before they arrive."""
    title = "the gradient of one kernel is doubled on its way into the parameter"
    cifar = partial(on_both_sides, model="cifar_18pct", size=None, stage="grads")
    jax, torch = patch("jax_alexnet.layers", "Conv", _doubled_kernel), _hooked_parameter
    causes = "gradient_hook", "gradient_scaled"
    yield from cifar(58, "parameter-hook", title, layers="conv2", causes=causes, jax=jax, torch=torch)
    title = "the gradient of one layer's output is halved on its way back"
    jax, torch = patch("jax_alexnet.layers", "Norm", _halved_output), _hooked_output
    yield from cifar(59, "output-hook", title, layers="rnorm2", causes="gradient_scaled", jax=jax, torch=torch)


def _torch_layer(name: str, module_class: type[nn.Module]) -> Callable[[Pair], Pair]:
    return lambda pair: planting.torch_module(pair, name, turned_into(module_class))


def _maximum_relu(original: Any) -> Any:
    class Maximum(original):
        """A ReLU written as a maximum, which halves the gradient at 0."""

        def __call__(self, x: Any) -> Any:
            return jnp.maximum(x, jnp.zeros((), x.dtype))

    return Maximum


def _last_of_ties(original: Any) -> Any:
    def max_pool(x: Any, window: int, stride: int, *, ceil: bool = False) -> Any:
        best, *others = pooling.window_slices((window, stride, ceil), x, -jnp.inf)
        for other in others:
            best = jnp.where(other >= best, other, best)
        return best

    return max_pool


class PassingRelu(nn.ReLU):
    """A ReLU that passes the gradient at 0."""

    def forward(self, input: Tensor) -> Tensor:
        """max(x, 0)."""
        return torch.where(input >= 0, input, torch.zeros((), dtype=input.dtype))


class LastOfTies(nn.MaxPool2d):
    """3x3 windows in steps of 2 in ceil mode, of whose equal maxima the last one counts."""

    def forward(self, x: Tensor) -> Tensor:
        """The maximum of each window."""
        rows, columns = (-(-(n - 3) // 2) + 1 for n in x.shape[2:])
        over = [2 * (count - 1) + 3 - n for count, n in zip((columns, rows), (x.shape[3], x.shape[2]), strict=True)]
        x = F.pad(x, (0, over[0], 0, over[1]), value=-torch.inf)
        best = None
        for i, j in itertools.product(range(3), repeat=2):
            other = x[:, :, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            best = other if best is None else torch.where(other >= best, other, best)
        return x if best is None else best


def _scaled(factor: float) -> Callable[[Any], Any]:
    """The identity, whose gradient is multiplied."""

    @jax.custom_vjp
    def same(x: Any) -> Any:
        return x

    same.defvjp(lambda x: (x, None), lambda _, gradient: (factor * gradient,))
    return same


def _doubled_kernel(original: Any) -> Any:
    class Doubled(original):
        """A convolution in conv2 of which the kernel's gradient is doubled."""

        def weights(self, *args: Any, **kwargs: Any) -> Any:
            kernel, bias = super().weights(*args, **kwargs)
            return (_scaled(2.0)(kernel) if self.layer.name == "conv2" else kernel), bias

    return Doubled


def _halved_output(original: Any) -> Any:
    class Halved(original):
        """A norm of which the gradient of the output is halved, in rnorm2."""

        def __call__(self, x: Any) -> Any:
            y = super().__call__(x)
            return _scaled(0.5)(y) if self.layer.name == "rnorm2" else y

    return Halved


@contextmanager
def _hooked_parameter(pair: Pair) -> Iterator[Pair]:
    handle = pair.torch_module.get_parameter("conv2.weight").register_hook(lambda gradient: 2 * gradient)
    try:
        yield pair
    finally:
        handle.remove()


@contextmanager
def _hooked_output(pair: Pair) -> Iterator[Pair]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient / 2)

    handle = pair.torch_module.get_submodule("rnorm2").register_forward_hook(hook)
    try:
        yield pair
    finally:
        handle.remove()
