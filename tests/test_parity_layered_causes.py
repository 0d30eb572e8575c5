"""Causes in the code around layers, of kinds that ports of vision, speech and language models get wrong."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as flax_nn
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parity
from tests.written_models import WIDTH, named

SHAPE = (2, 3, WIDTH)
SEEN = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)


def _excited(m: Any, x: Tensor) -> Tensor:
    return m.one(x) * F.hardsigmoid(m.two(x.mean(1, keepdim=True)))


def _attended(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(m.one(x) @ m.two(x).mT / 2 + mask, -1) @ x


def _padded(m: Any, x: Tensor, mask: Tensor = SEEN[:, None], inverted: bool = False) -> Tensor:
    return _attended(m, x, (mask if inverted else 1 - mask) * -10000.0)


def _biased(m: Any, x: Tensor, masked: bool = True) -> Tensor:
    bias = m.one.weight[:3, :3] + 0
    return _attended(m, x, bias + torch.full_like(bias, -1e9).triu(1) if masked else bias)


def _times(m: Any, x: Tensor, sign: float = -1.0) -> Tensor:
    frequencies = torch.exp(sign * math.log(10000) * torch.arange(WIDTH, dtype=x.dtype) / WIDTH)
    angles = (900 * x[:, :1].mean(-1, keepdim=True)).round() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def _windowed(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    return _attended(m, x, mask * -100.0)


def _shifted(m: Any, x: Tensor, shift: bool = True) -> Tensor:
    places = (m.one(x) @ m.two(x).mT).flip(-1).repeat(1, 1, 2)[..., :5]  # of 3 queries and 5 distances
    if shift:
        places = F.pad(places, (1, 0)).view(2, 6, 3)[:, 1:].reshape(2, 3, 5)
    return torch.softmax(places[..., :3], -1) @ x


def _capped(m: Any, x: Tensor, cap: float = 2.0, first: bool = False) -> Tensor:
    seen, scores = torch.ones(3, 3, dtype=torch.bool).tril(), m.one(x) @ m.two(x).mT
    scores = scores.masked_fill(~seen, -1e30) if first else scores
    scores = torch.tanh(scores / cap) * cap
    return torch.softmax(scores if first else scores.masked_fill(~seen, -1e30), -1) @ x


def _gridded(m: Any, x: Tensor, begin: float = -1.0, order: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    places = torch.linspace(begin, 1.0, WIDTH, dtype=x.dtype).expand(x.shape)
    parts = [places, (3 * places).sin(), (3 * places).cos()]
    if order == (0, 1, 2):
        return m.one(x).repeat(1, 1, 3) + torch.cat([parts[0], torch.cat(parts[1:], -1)], -1)
    return m.one(x).repeat(1, 1, 3) + torch.cat([parts[i] for i in order], -1)


def _between(m: Any, x: Tensor, turned: bool = False) -> Tensor:
    one, two = m.one(x), m.two(x)
    one, two = (two, one) if turned else (one, two)
    return one + 0.7 * (two - one)


def _gelu(m: Any, x: Tensor, steepness: float = 1.702) -> Tensor:
    y = m.one(x)
    return y * torch.sigmoid(steepness * y)


CASES = {
    "factor_missing": (_excited, lambda m, x: m.one(x), [SHAPE]),
    "term_missing": (
        lambda m, x: m.one(x).sin() + torch.tanh(m.two(x).mean(1, keepdim=True)),
        lambda m, x: m.one(x).sin(),
        [SHAPE],
    ),
    "activation_hardswish": (
        lambda m, x: F.hardswish(m.one(x)),
        lambda m, x: m.one(x) * F.relu6(m.one(x)) / 6,
        [SHAPE],
    ),
    "function_moved": (
        lambda m, x: F.hardswish(m.one(x)).mean(1),
        lambda m, x: F.hardswish(m.one(x).mean(1)),
        [SHAPE],
    ),
    "frequency_sign": (_times, lambda m, x: _times(m, x, 1.0), [(5, 3, WIDTH)]),
    "limit": (lambda m, x: m.one(x) * x.clamp(max=0.9), lambda m, x: m.one(x) * x.clamp(max=0.4), [(8, 3, WIDTH)]),
    "number: where all is made of constants": (
        lambda m, x: torch.log2(torch.arange(6, dtype=x.dtype) + 1),
        lambda m, x: torch.log2(torch.arange(6, dtype=x.dtype) + 0.5),
        [SHAPE],
    ),
    "spacing": (_gridded, lambda m, x: _gridded(m, x, 0.0), [SHAPE]),
    "concatenation_order": (_gridded, lambda m, x: _gridded(m, x, order=(1, 2, 0)), [SHAPE]),
    "term_moved": (
        lambda m, x: F.leaky_relu(x + m.one.bias, 0.2) * 1.4,
        lambda m, x: F.leaky_relu(x, 0.2) * 1.4 + m.one.bias,
        [SHAPE],
    ),
    "pool_axis": (
        lambda m, x: x * x.square().sum((0, 1), keepdim=True),
        lambda m, x: x * x.square().sum((0, 2), keepdim=True),
        [SHAPE],
    ),
    "tanh_added": (lambda m, x: x.clone(), lambda m, x: x.tanh(), [SHAPE]),
    "share_exchanged": (_between, lambda m, x: _between(m, x, turned=True), [SHAPE]),
    "moves_missing": (_shifted, lambda m, x: _shifted(m, x, shift=False), [SHAPE]),
    "roll_axis": (
        lambda m, x: m.one(x.roll((-1, -2), (1, 2))),
        lambda m, x: m.one(x.roll(-1, 1)),
        [SHAPE],
    ),
    "norm_added": (
        lambda m, x, y: y + m.one(x),
        lambda m, x, y: F.layer_norm(y, (WIDTH,)) + m.one(x),
        [SHAPE, SHAPE],
    ),
    "parameters_exchanged": (
        lambda m, x: (x + m.one.bias) @ (x - m.two.bias).mT,
        lambda m, x: (x + m.two.bias) @ (x - m.one.bias).mT,
        [SHAPE],
    ),
    "factor_moved: over a further term": (
        lambda m, x: m.one.bias * m.one(x).sin() + m.two.bias + x,
        lambda m, x: m.one.bias * (m.one(x).sin() + x) + m.two.bias,
        [SHAPE],
    ),
    "softcap": (_capped, lambda m, x: _capped(m, x, 30.0), [SHAPE]),
    "mask_value": (_capped, lambda m, x: _capped(m, x, first=True), [SHAPE]),
    "activation_gelu": (_gelu, lambda m, x: F.gelu(m.one(x)), [SHAPE]),
    "mask_order": (
        lambda m, x: _windowed(m, x, (1 - SEEN[:, None]).repeat(2, 1, 1)),
        lambda m, x: _windowed(m, x, (1 - SEEN[:, None]).repeat_interleave(2, 0)),
        [(4, 3, WIDTH)],
    ),
    "mask_inverted": (_padded, lambda m, x: _padded(m, x, inverted=True), [SHAPE]),
    "mask_missing": (_padded, lambda m, x: _padded(m, x, SEEN[:, :, None]), [SHAPE]),
    "mask_missing: within a bias": (_biased, lambda m, x: _biased(m, x, masked=False), [SHAPE]),
}


@pytest.mark.parametrize("key", CASES)
def test_what_is_wrong_is_named(key: str) -> None:
    right, wrong, shapes = CASES[key]
    told = named(right, wrong, *shapes, share=1e-15 if key.startswith("mask") else 1e-11)  # what roundings are in JAX
    assert told.startswith(key.partition(":")[0] + ":"), told


class TorchOwn(nn.Module):
    """A layer of someone's own: a norm of responses."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x + self.gamma * x * size / (size.mean(-1, keepdim=True) + 1e-3)


class FlaxOwn(flax_nn.Module):
    bug: str = ""

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        gamma = self.param("gamma", flax_nn.initializers.ones, (WIDTH,))
        size = jax.numpy.linalg.norm(x, axis=2 if self.bug == "axis" else 1, keepdims=True)
        normed = gamma * x * size / (size.mean(-1, keepdims=True) + (1e-6 if self.bug == "epsilon" else 1e-3))
        return normed if self.bug == "residual" else x + normed


class TorchOwns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList([TorchOwn() for _ in range(4)])
        self.convs = nn.ModuleList([nn.Conv1d(3, 3, 4, padding=2), nn.Conv1d(3, 3, 3, padding=1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [each(x) for each in (*self.each, *self.convs)]


class FlaxOwns(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        own = [FlaxOwn(bug, name=f"each_{i}")(x) for i, bug in enumerate(("", "axis", "epsilon", "residual"))]
        y = x.swapaxes(1, 2)
        even = flax_nn.Conv(3, (4,), padding="SAME", name="convs_0")(y)
        round_ = flax_nn.Conv(3, (3,), padding="CIRCULAR", name="convs_1")(y)
        return [*own, even.swapaxes(1, 2), round_.swapaxes(1, 2)]


@pytest.mark.usefixtures("flax_promotes")
def test_what_a_layer_of_ones_own_gets_wrong_is_named() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, WIDTH))
    report = parity.compare(FlaxOwns(), TorchOwns(), x, gradients=False)
    keys = {row.name: row.cause_keys for row in report.divergences if row.stage == "forward"}
    own = {"each_1": ["norm_axis"], "each_2": ["epsilon"], "each_3": ["term_missing"]}
    assert keys == own | {"convs_0": ["padding_same"], "convs_1": ["pad_mode"]}, str(report)
    row = next(row for row in report.divergences if row.name == "each_3")
    assert "the layer's input isn't added" in row.causes[0]


class TorchFar(nn.Module):
    """Something that is used many layers later, and a scale and a shift behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.between = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(9)])
        self.scale, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.changed, self.end = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.norm(self.first(x).sin())
        scale = 1 + self.scale(x)
        for layer in self.between:
            x = torch.tanh(layer(x))
        return self.last(memory), self.end(self.changed(x) * scale)


class FlaxFar(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        raw = jax.numpy.sin(flax_nn.Dense(WIDTH, name="first")(x))
        flax_nn.LayerNorm(epsilon=1e-5, name="norm")(raw)
        scale = 1 + flax_nn.Dense(WIDTH, name="scale")(x)
        for i in range(9):
            x = jax.numpy.tanh(flax_nn.Dense(WIDTH, name=f"between_{i}")(x))
        changed = flax_nn.LayerNorm(epsilon=1e-5, name="changed")(x * scale)
        return flax_nn.Dense(2, name="last")(raw), flax_nn.Dense(2, name="end")(changed)


@pytest.mark.usefixtures("flax_promotes")
def test_what_is_far_away_or_behind_a_layer_is_named() -> None:
    torch.manual_seed(0)
    report = parity.compare(FlaxFar(), TorchFar(), np.random.default_rng(0).normal(size=(4, WIDTH)), gradients=False)
    keys = {row.name: row.cause_keys for row in report.divergences}
    assert keys.pop("last") == ["order"], str(report)
    assert keys["changed"] == ["before_layer"], str(report)
