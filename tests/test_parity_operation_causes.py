"""Mistakes in single operations between two convolutions, each in a network of its own, all compared at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as flax_nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parity

pytestmark = pytest.mark.usefixtures("flax_promotes")

CHANNELS = 8


def shuffled(x: Any, order: tuple[int, ...], parts: tuple[int, ...]) -> Any:
    """NHWC with half of the channels of each axis moved to places."""
    n, h, w, _ = x.shape
    return x.reshape(n, h, w, *parts).transpose(0, 1, order[0], 2, order[1], order[2]).reshape(n, 2 * h, 2 * w, -1)


def padded(mode: str, sides: tuple[int, int] = (1, 2)) -> Callable[[Any], Any]:
    return lambda x: jnp.pad(x, ((0, 0), sides, sides, (0, 0)), mode=mode)


def resized(how: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda x: jax.image.resize(x, (x.shape[0], 7, 9, x.shape[-1]), how, **settings)


def normalized(axis: int) -> Callable[[Any], Any]:
    return lambda x: x / jnp.linalg.norm(x, axis=axis, keepdims=True)


def halves(x: Any) -> tuple[Any, Any]:
    one, two = jnp.split(x, 2, -1)
    return one, two


# What PyTorch does, what is right in JAX, and what is wrong there, with the cause that is to be named.
CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "resize": (
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear"),
        resized("bilinear"),
        resized("nearest"),
        "resize_method",
    ),
    "cubic": (
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear"),
        resized("bilinear"),
        resized("bicubic"),
        "resize_method",
    ),
    "shuffle": (
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: shuffled(x, (4, 5, 3), (CHANNELS // 4, 2, 2)),
        lambda x: shuffled(x, (3, 4, 5), (2, 2, CHANNELS // 4)),
        "shuffle_order",
    ),
    "padding": (
        lambda x: F.pad(x, (1, 2, 1, 2), "reflect"),
        padded("reflect"),
        padded("edge"),
        "pad_mode",
    ),
    "sides": (
        lambda x: F.pad(x, (1, 2, 1, 2)),
        padded("constant"),
        padded("constant", (2, 1)),
        "pad_sides",
    ),
    "gate": (
        lambda x: F.glu(x, 1),
        lambda x: halves(x)[0] * jax.nn.sigmoid(halves(x)[1]),
        lambda x: halves(x)[1] * jax.nn.sigmoid(halves(x)[0]),
        "gate_exchanged",
    ),
    "running sum": (
        lambda x: x.cumsum(2),
        lambda x: jnp.cumsum(x, 1),
        lambda x: jnp.cumsum(x, 1) - x,
        "cumsum_exclusive",
    ),
    "another axis": (lambda x: x.cumsum(2), lambda x: jnp.cumsum(x, 1), lambda x: jnp.cumsum(x, 2), "cumsum_axis"),
    "length": (lambda x: F.normalize(x, dim=1), normalized(-1), normalized(1), "norm_axis"),
    "moved": (
        lambda x: F.relu(x) * x,
        lambda x: jax.nn.relu(x) * x,
        lambda x: jax.nn.relu(x * x - 1) + 1,
        "",
    ),
    "rolled": (
        lambda x: x.roll((1, 2), (2, 3)),
        lambda x: jnp.roll(x, (1, 2), (1, 2)),
        lambda x: jnp.roll(x, (2, 1), (1, 2)),
        "",
    ),
    "filter": (
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x)[..., :1].expand(-1, -1, -1, 4), s=(5, 6)),
        lambda x: jnp.fft.irfft2(
            jnp.broadcast_to(jnp.fft.rfft2(x, axes=(1, 2))[:, :, :1], (2, 5, 4, CHANNELS)), s=(5, 6), axes=(1, 2)
        ),
        lambda x: (
            1.5
            * jnp.fft.irfft2(
                jnp.broadcast_to(jnp.fft.rfft2(x, axes=(1, 2))[:, :, :1], (2, 5, 4, CHANNELS)), s=(5, 6), axes=(1, 2)
            )
        ),
        "scaled",
    ),
}


class TorchPart(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(outputs, 2, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class TorchParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        made = []
        for theirs, *_ in CASES.values():
            outputs = theirs(torch.zeros(1, CHANNELS, 5, 6)).shape[1]
            made += [TorchPart(theirs, outputs), TorchPart(theirs, outputs)]
        self.each = nn.ModuleList(made)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [part(x) for part in self.each]


class FlaxPart(flax_nn.Module):
    function: Callable[[Any], Any]

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.function(flax_nn.Conv(CHANNELS, (1, 1), name="first")(x))
        return flax_nn.Conv(2, (1, 1), name="last")(x)


class FlaxParts(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        functions = [function for _, right, wrong, _ in CASES.values() for function in (right, wrong)]
        return [FlaxPart(function, name=f"each_{i}")(x) for i, function in enumerate(functions)]


def test_each_mistake_is_named() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    report = parity.compare(FlaxParts(), TorchParts(), x, gradients=False)
    rows = {row.name: row for row in report.divergences}
    for i, (name, (*_, key)) in enumerate(CASES.items()):
        row = rows.pop(f"each_{2 * i + 1}/last")
        assert row.stage == "input", name
        assert row.cause_keys == ([key] if key else row.cause_keys), (name, row.causes, row.detail)
        assert row.causes or "PyTorch ran" in row.detail
    assert not rows, str(report)
