"""Normalisations and transposed convolutions of both Flax libraries, and the mistakes that people make with them."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import parity

rngs = nnx.Rngs(0)


def drawn(module: nn.Module) -> nn.Module:
    """With parameters and statistics that no mistake leaves as they are."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2, generator=generator)
    return module.eval()


MAP, ROWS = (2, 4, 5, 6), (3, 5, 8)
RIGHT: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, ...]]] = {
    "batch": (lambda: nn.BatchNorm2d(4), lambda: linen.BatchNorm(use_running_average=True, epsilon=1e-5), MAP),
    "layer": (lambda: nn.LayerNorm(8), lambda: linen.LayerNorm(epsilon=1e-5), ROWS),
    "rms": (lambda: nn.RMSNorm(8, eps=1e-6), lambda: linen.RMSNorm(epsilon=1e-6), ROWS),
    "group": (lambda: nn.GroupNorm(2, 4), lambda: linen.GroupNorm(num_groups=2, epsilon=1e-5), MAP),
    "instance": (lambda: nn.InstanceNorm2d(4, affine=True), lambda: linen.InstanceNorm(epsilon=1e-5), MAP),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
        lambda: linen.ConvTranspose(3, (4, 4), (2, 2), padding=((2, 2), (2, 2))),
        MAP,
    ),
    "nnx layer": (lambda: nn.LayerNorm(8), lambda: nnx.LayerNorm(8, epsilon=1e-5, rngs=rngs), ROWS),
    "nnx rms": (lambda: nn.RMSNorm(8, eps=1e-6), lambda: nnx.RMSNorm(8, epsilon=1e-6, rngs=rngs), ROWS),
    "nnx transposed": (
        lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
        lambda: nnx.ConvTranspose(4, 3, (3, 3), (2, 2), padding="VALID", rngs=rngs),
        MAP,
    ),
    "transposed kernel": (
        lambda: nn.ConvTranspose2d(4, 3, (4, 3), stride=2, padding=1),
        lambda: linen.ConvTranspose(3, (4, 3), (2, 2), padding=((2, 2), (1, 1)), transpose_kernel=True),
        MAP,
    ),
    "nnx transposed kernel": (
        lambda: nn.ConvTranspose2d(4, 4, 3, stride=2),
        lambda: nnx.ConvTranspose(4, 4, (3, 3), (2, 2), padding="VALID", transpose_kernel=True, rngs=rngs),
        MAP,
    ),
}


def compared(original: nn.Module, candidate: Any, shape: tuple[int, ...]) -> Any:
    x = np.random.default_rng(0).normal(size=shape) + 0.3
    flax_inputs = None if isinstance(original, (nn.LayerNorm, nn.RMSNorm)) else (np.moveaxis(x, 1, -1),)
    wrapped = nn.Sequential(drawn(original))
    linen_side = isinstance(candidate, linen.Module)
    ported = linen.Sequential([candidate]) if linen_side else nnx.Sequential(candidate)
    mapping = {"layers_0" if linen_side else "layers/0": "0"}
    return parity.compare(ported, wrapped, x, flax_inputs=flax_inputs, mapping=mapping)


@pytest.mark.parametrize("name", RIGHT)
def test_right_ports_are_equal_both_ways(name: str, flax_promotes: None) -> None:
    original, candidate, shape = RIGHT[name]
    report = compared(original(), candidate(), shape)
    assert report.equal, report
    assert any(row.stage.startswith("backward") for row in report.rows)


WRONG: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, ...], str]] = {
    "batch epsilon": (
        lambda: nn.BatchNorm2d(4),
        lambda: linen.BatchNorm(use_running_average=True, epsilon=1e-3),
        MAP,
        "JAX: epsilon is 0.001, not 1e-05",
    ),
    "layer epsilon": (lambda: nn.LayerNorm(8), lambda: linen.LayerNorm(), ROWS, "JAX: epsilon is 1e-06, not 1e-05"),
    "nnx epsilon": (
        lambda: nn.LayerNorm(8, eps=1e-12),
        lambda: nnx.LayerNorm(8, rngs=rngs),
        ROWS,
        "JAX: epsilon is 1e-06, not 1e-12",
    ),
    "group epsilon": (
        lambda: nn.GroupNorm(2, 4),
        lambda: linen.GroupNorm(num_groups=2),
        MAP,
        "JAX: epsilon is 1e-06, not 1e-05",
    ),
    "groups": (
        lambda: nn.GroupNorm(2, 4),
        lambda: linen.GroupNorm(num_groups=4, epsilon=1e-5),
        MAP,
        "JAX: there are 4 groups, not 2",
    ),
    "no scale": (
        lambda: nn.LayerNorm(8),
        lambda: linen.LayerNorm(epsilon=1e-5, use_scale=False),
        ROWS,
        "scale",
    ),
    "axes": (
        lambda: nn.LayerNorm(8),
        lambda: linen.LayerNorm(epsilon=1e-5, reduction_axes=(1, 2)),
        ROWS,
        "JAX: statistics are taken over axis 1 and 2",
    ),
    "batch statistics": (
        lambda: nn.BatchNorm2d(4),
        lambda: _OfTheBatch(),
        MAP,
        "JAX: the batch's own statistics are taken",
    ),
    "turned kernel": (
        lambda: nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1),
        lambda: _TurnedKernel(3, (4, 4), (2, 2), padding=((2, 2), (2, 2))),
        (2, 3, 5, 6),
        "JAX: the kernel is flipped",
    ),
}


class _TurnedKernel(linen.ConvTranspose):
    """That takes its kernel from the other end, as if it were PyTorch's."""

    @linen.compact
    def __call__(self, inputs: Any) -> Any:
        kernel = self.param("kernel", linen.initializers.ones, (4, 4, 3, self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        made = jax.lax.conv_transpose(inputs, kernel[::-1, ::-1], (2, 2), ((2, 2), (2, 2)))
        return made + bias


class _OfTheBatch(linen.BatchNorm):
    use_running_average: bool | None = True

    @linen.compact
    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        mean = self.variable("batch_stats", "mean", lambda: np.zeros(4))
        var = self.variable("batch_stats", "var", lambda: np.ones(4))
        del mean, var
        scale = self.param("scale", linen.initializers.ones, (4,))
        bias = self.param("bias", linen.initializers.zeros, (4,))
        centred = x - x.mean((0, 1, 2))
        return centred / (x.var((0, 1, 2)) + 1e-5) ** 0.5 * scale + bias


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, flax_promotes: None) -> None:
    original, candidate, shape, cause = WRONG[name]
    report = compared(original(), candidate(), shape)
    first = report.first_divergence
    assert first is not None
    named = [text for row in report.rows if not row.equal for text in [*row.causes, row.detail]]
    assert any(cause in text for text in named), (named, str(report)[:2000])
