"""Causes in models without layers to cut at: what is in another order or place, several places alike, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parity
from parity.causes import alike, families
from parity.causes.attempts import Problem, explaining
from parity.causes.between_graph import Code
from parity.causes.graph import Region
from parity.reference import torch_graph
from tests.written_models import WIDTH, Written, named


def _in_a_row(m: Any, x: Tensor) -> Tensor:
    x = x + torch.tanh(m.one(x))
    return x + m.two(m.norm(x))


def _states(m: Any, x: Tensor, late: bool = True) -> Tensor:
    state, given = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        before, state = state, 0.5 * state + m.one(x[:, t])
        given.append((state if late else before) * x[:, t])
    return torch.stack(given, 1)


def _grown(m: Any, x: Tensor, sign: float = -1.0) -> Tensor:
    return torch.exp(9 * torch.exp(m.one(x)) * (-torch.exp(m.two(x)) if sign < 0 else torch.exp(m.two(x)))) + 1


def _grouped(m: Any, x: Tensor, apart: bool = False) -> Tensor:
    """Four heads of queries, two of keys and values."""
    split = (*x.shape[:2], 2, -1)
    q = m.one(x).view(*x.shape[:2], 4, -1).transpose(1, 2)
    k, v = (y[..., :2].view(split).repeat_interleave(2, 2).transpose(1, 2) for y in (m.two(x), m.three(x)))
    q = q[:, [0, 2, 1, 3]] if apart else q
    return (torch.softmax(q @ k.mT * 3, -1) @ v).transpose(1, 2).flatten(2)


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


EDGES = [[0, 1, 2, 2, 0], [1, 2, 0, 1, 2]]
STRUCTURE = {
    "branches_exchanged": (
        _in_a_row,
        lambda m, x: (y := x + m.two(m.norm(x))) + torch.tanh(m.one(y)),
        [(2, 3, WIDTH)],
    ),
    "branches_parallel": (_in_a_row, lambda m, x: x + torch.tanh(m.one(x)) + m.two(m.norm(x)), [(2, 3, WIDTH)]),
    "branches_serial": (
        lambda m, x: x + torch.tanh(m.one(x)) + m.two(m.norm(x)),
        _in_a_row,
        [(2, 3, WIDTH)],
    ),
    "function_moved": (lambda m, x: m.norm(x + m.one(x)), lambda m, x: x + m.one(m.norm(x)), [(2, 3, WIDTH)]),
    "factor_moved": (
        lambda m, x: x + m.kernel[0, :, 0] * m.one(x),
        lambda m, x: m.kernel[0, :, 0] * x + m.one(x),
        [(2, 3, WIDTH)],
    ),
    "state_before": (_states, lambda m, x: _states(m, x, late=False), [(2, 5, WIDTH)]),
    "padding_side": (
        lambda m, x: F.conv1d(x, m.kernel, padding=1),
        lambda m, x: F.conv1d(F.pad(x, (2, 0)), m.kernel),
        [(2, WIDTH, 6)],
    ),
    "padding_same": (
        lambda m, x: F.conv1d(x, m.kernel, padding=1, stride=2),
        lambda m, x: F.conv1d(F.pad(x, (0, 1)), m.kernel, stride=2),
        [(2, WIDTH, 6)],
    ),
    "padding_side: the transposed": (
        lambda m, x: F.conv_transpose1d(x, m.kernel, padding=1),
        lambda m, x: F.conv_transpose1d(x, m.kernel)[..., 2:],
        [(2, WIDTH, 6)],
    ),
    "batch_statistics": (
        lambda m, x: F.batch_norm(x, None, None, training=True),
        lambda m, x: F.instance_norm(x),
        [(3, WIDTH, 6)],
    ),
    "reduction": (
        lambda m, x, y: x.mean() + F.mse_loss(m.one(x), y),
        lambda m, x, y: x.mean() + F.mse_loss(m.one(x), y, reduction="sum"),
        [(3, WIDTH), (3, WIDTH)],
    ),
    "loss_half": (
        lambda m, x, y: x.mean() + F.mse_loss(m.one(x), y),
        lambda m, x, y: x.mean() + F.mse_loss(m.one(x), y) / 2,
        [(3, WIDTH), (3, WIDTH)],
    ),
    "other_loss": (
        lambda m, x, y: F.mse_loss(m.one(x), y),
        lambda m, x, y: F.l1_loss(m.one(x), y),
        [(3, WIDTH), (3, WIDTH)],
    ),
    "arguments_exchanged": (
        lambda m, x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
        lambda m, x, y: F.binary_cross_entropy(y.sigmoid(), x.sigmoid()),
        [(3, WIDTH), (3, WIDTH)],
    ),
    "other_indices": (
        lambda m, x, a, b: m.one(x)[a] * x[b] * m.two(x)[b] + torch.tanh(x)[b],
        lambda m, x, a, b: m.one(x)[a] * x[a] * m.two(x)[b] + torch.tanh(x)[a],
        [(3, WIDTH), *EDGES],
    ),
    "segment_max": (
        lambda m, x, edges: torch.zeros_like(x).index_add(0, edges[1], m.one(x)[edges[0]]),
        lambda m, x, edges: torch.stack(
            [m.one(x)[[j for j, k in zip(*edges.tolist(), strict=True) if k == i]].amax(0) for i in range(len(x))]
        ),
        [(3, WIDTH), EDGES],
    ),
    "term_missing": (
        lambda m, x: m.one(x) * (torch.arange(WIDTH, dtype=x.dtype) + 0.5),
        lambda m, x: m.one(x) * torch.arange(WIDTH, dtype=x.dtype),
        [(3, WIDTH)],
    ),
    "groups": (
        lambda m, x: F.group_norm(x, 2),
        lambda m, x: F.group_norm(x, 1),
        [(3, WIDTH, 6)],
    ),
    "groups_interleaved": (
        lambda m, x: F.group_norm(x, 2) * m.one.bias[:, None],
        lambda m, x: F.group_norm(x[:, [0, 2, 1, 3]], 2)[:, [0, 2, 1, 3]] * m.one.bias[:, None],
        [(3, WIDTH, 6)],
    ),
    "split_order": (
        lambda m, x: m.one(x).reshape(2, 6, 2) @ m.kernel[:2, :2, 0],
        lambda m, x: m.one(x).reshape(2, 3, 2, 2).mT.reshape(2, 6, 2) @ m.kernel[:2, :2, 0],
        [(2, 3, WIDTH)],
    ),
    "other_loss: the absolute": (
        lambda m, x, y: F.smooth_l1_loss(m.one(x), y, reduction="none").sum(-1),
        lambda m, x, y: F.l1_loss(m.one(x), y, reduction="none").sum(-1),
        [(3, WIDTH), (3, WIDTH)],
    ),
    "token_first": (
        lambda m, x: x + m.one.bias[1] * m.two(x),
        lambda m, x: x + m.one.bias[0] * m.two(x),
        [(3, WIDTH)],
    ),
    "complex_part: the imaginary": (
        lambda m, x: 2 * (torch.cos(m.one(x)) * m.two(x) - torch.sin(m.one(x)) * m.three(x)).sum(1),
        lambda m, x: 2 * (torch.cos(m.one(x)) * m.three(x) + torch.sin(m.one(x)) * m.two(x)).sum(1),
        [(2, 3, WIDTH)],
    ),
    "softcap": (
        lambda m, x: 10 * torch.tanh(m.one(x)) @ m.kernel[..., 0],
        lambda m, x: 10 * torch.tanh(m.one(x) / 10) @ m.kernel[..., 0],
        [(3, WIDTH)],
    ),
    "condition_missing": (
        lambda m, x: torch.where((x.flip(0) > 0) | (m.one(x) > 0.1), x, m.two(x)) @ m.kernel[..., 0],
        lambda m, x: torch.where(m.one(x) > 0.1, x, m.two(x)) @ m.kernel[..., 0],
        [(3, WIDTH)],
    ),
    "condition_joined": (
        lambda m, x: torch.where((x.flip(0) > 0) | (m.one(x) > 0.1), x, m.two(x)) @ m.kernel[..., 0],
        lambda m, x: torch.where((x.flip(0) > 0) & (m.one(x) > 0.1), x, m.two(x)) @ m.kernel[..., 0],
        [(12, WIDTH)],
    ),
    "other_input: places of": (
        lambda m, x, y: torch.tanh(m.one(x)).gather(1, y) * m.two.bias,
        lambda m, x, y: x.gather(1, y) * m.two.bias,
        [(3, WIDTH), [[0, 2, 1, 1], [3, 1, 0, 2], [2, 3, 0, 0]]],
    ),
    "other_input: the output of one is taken by max_pool2d": (
        lambda m, x: torch.cat([_pooled(y := m.one(x)), z := _pooled(_pooled(y)), _pooled(z)]),
        lambda m, x: torch.cat([z := _pooled(m.one(x)), z, _pooled(z)]),
        [(2, 3, 5, WIDTH)],
    ),
    "activation_exp": (
        lambda m, x: x * (2 * m.one(x)) ** 2,
        lambda m, x: x * torch.exp(m.one(x)),
        [(3, WIDTH)],
    ),
    "variance_unbiased": (
        lambda m, x: F.group_norm(x, 2) * m.one.bias[:, None],
        lambda m, x: F.group_norm(x, 2, eps=1e-5 * 11 / 12) * m.one.bias[:, None] * (11 / 12) ** 0.5,
        [(3, WIDTH, 6)],
    ),
    "repeat_order": (
        lambda m, x: F.interpolate(m.one(x), scale_factor=2) * m.two.bias[0],
        lambda m, x: m.one(x).tile(1, 1, 2, 2) * m.two.bias[0],
        [(2, 3, 5, WIDTH)],
    ),
    "root_added": (
        lambda m, x: (y := m.one(x).pow(2).sum(-1, keepdim=True)) * m.two(x) / (y.sqrt() + 1),
        lambda m, x: (y := m.one(x).norm(dim=-1, keepdim=True)) * m.two(x) / (y.sqrt() + 1),
        [(3, WIDTH)],
    ),
    "function_moved: the norm": (
        lambda m, x: m.norm(m.one(x).mean(1)) @ m.kernel[..., 0],
        lambda m, x: m.norm(m.one(x)).mean(1) @ m.kernel[..., 0],
        [(2, 3, WIDTH)],
    ),
    "term_moved: one.bias": (
        lambda m, x: x * F.softplus(m.one(x)),
        lambda m, x: x * (F.softplus(x @ m.one.weight.T) + m.one.bias),
        [(3, WIDTH)],
    ),
    "parts_order": (
        lambda m, x: (y := m.one(x).split([2, 1, 1], -1))[0] * torch.exp(y[1]) + y[2],
        lambda m, x: (y := m.one(x).split([2, 1, 1], -1))[0] * torch.exp(y[2]) + y[1],
        [(3, WIDTH)],
    ),
    "other_item": (
        lambda m, x: x[:, 1],
        lambda m, x: x[:, 3],
        [[[2, 7, 1, 8, 2], [8, 1, 8, 2, 8], [4, 5, 9, 0, 4]]],
    ),
    "query_groups": (
        lambda m, x: _grouped(m, x),
        lambda m, x: _grouped(m, x, apart=True),
        [(2, 3, WIDTH)],
    ),
    "factor_missing": (
        lambda m, x: torch.tanh(m.one(x))[..., None] * x[:, :, None] + m.two.weight,
        lambda m, x: x[:, :, None].expand(-1, -1, WIDTH, -1) + m.two.weight,
        [(2, 3, WIDTH)],
    ),
    "neg_missing": (_grown, lambda m, x: _grown(m, x, 1.0), [(3, WIDTH)]),
}


@pytest.mark.parametrize("key", STRUCTURE)
def test_what_is_in_another_order_or_place_is_named(key: str) -> None:
    right, wrong, shapes = STRUCTURE[key]
    told = named(right, wrong, *shapes)
    assert told.startswith(key), told


def _stacked(m: Any, x: Tensor, curves: tuple[Callable, ...], order: tuple[int, int] = (0, 1)) -> Tensor:
    for layer, curve in zip((m.one, m.two, m.three), curves, strict=True):
        parts = layer(x).chunk(2, -1)
        x = x + torch.cat([curve(parts[order[0]]) * parts[order[1]], parts[order[1]]], -1)
    return x


def test_one_mistake_in_some_of_the_places_alike_is_named() -> None:
    right, wrong = ((F.silu, F.silu, F.silu), (F.silu, F.relu, F.relu))
    told = named(lambda m, x: _stacked(m, x, right), lambda m, x: _stacked(m, x, wrong), (2, 3, WIDTH))
    assert told.startswith("activation_relu") and "in 2 places like it, of 3" in told


def _shares(m: Any, x: Tensor, divided: bool = True) -> Tensor:
    """Twice, numbers divided by sums of which each is at least one: these limited to one would be nothing by itself."""
    for layer in (m.one, m.two):
        size = layer(x).abs()
        x = x + (size / (size.sum(-1, keepdim=True) + 1) if divided else size)
    return x


def test_a_strange_mistake_in_all_places_is_named_behind_a_plain_one() -> None:
    told = named(_shares, lambda m, x: _shares(m, x, divided=False), (2, 3, WIDTH))
    assert told.startswith("factor_missing") and "in all 2 places" in told, told


def test_a_mistake_in_all_places_is_made_again_of_what_the_one_before_gave() -> None:
    curves = (F.silu, torch.tanh, F.relu)
    told = named(lambda m, x: _stacked(m, x, curves), lambda m, x: _stacked(m, x, curves, order=(1, 0)), (2, 3, WIDTH))
    assert told.startswith("parts_order") and "in all 3 places" in told, told


def test_norms_whose_names_end_in_a_number_are_no_layers_of_a_list() -> None:
    words = ["the output of layers.0.norm2", "the output of layers.12.norm1"]
    assert [alike.LAYER.sub("*", each) for each in words] == [
        "the output of layers.*.norm2",
        "the output of layers.*.norm1",
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "key"),
    [
        (lambda m, x: m.one(x) / x.abs().clamp(min=1), lambda m, x: m.one(x), "factor_missing"),
        (lambda m, x: x + 0.5 * m.one(x), lambda m, x: x + m.one(x), "scaled"),
    ],
)
def test_the_plainest_of_several_mistakes_is_named(right: Callable, wrong: Callable, key: str) -> None:
    assert named(right, wrong, (3, WIDTH)).startswith(key)


class Quantized(nn.Module):
    """Values rounded straight through, and a loss that holds one side fast."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Parameter(torch.randn(3, WIDTH)), nn.Parameter(torch.randn(WIDTH, 2))
        self.held = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x @ self.inner
        q = h + (torch.round(h) - h).detach()
        near = (h.detach() - self.held).pow(2).mean(-1) + 0.25 * (h - self.held.detach()).pow(2).mean(-1)
        return torch.sigmoid(q @ self.outer), near


stop = jax.lax.stop_gradient


@jax.custom_vjp
def squashed(x: jax.Array) -> jax.Array:
    """A sigmoid whose gradient is its own value's."""
    return jax.nn.sigmoid(x)


squashed.defvjp(lambda x: (jax.nn.sigmoid(x), None), lambda _, g: (g,))


def _quantized(bug: str) -> Callable:
    def function(tree: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, e = x @ tree["inner"], tree["held"][None]
        q = jnp.round(h) if bug == "no straight way" else h + stop(jnp.round(h) - h)
        held, moved = (((a - b) ** 2).mean(-1) for a, b in ((stop(h), e), (h, stop(e))))
        if bug == "not stopped":
            held = ((h - e) ** 2).mean(-1)
        if bug == "factors":
            held, moved = moved, held
        if bug == "doubled":
            q = 2 * q - stop(q)
        last = squashed if bug == "custom" else jax.nn.sigmoid
        return last(q @ tree["outer"]), held + 0.25 * moved

    return function


@pytest.mark.parametrize(
    ("bug", "place", "key"),
    [
        ("", None, None),
        ("not stopped", "inner", "gradient_not_stopped"),
        ("no straight way", "inner", "gradient_stopped"),
        ("factors", "held", "factors_exchanged"),
        ("doubled", "inner", "gradient_scaled"),
        ("custom", "outer", "straight_through"),
    ],
)
def test_what_is_wrong_backward_alone_is_named_once(bug: str, place: str | None, key: str | None) -> None:
    torch.manual_seed(0)
    model = Quantized().double()
    tree = {name: value.detach().numpy() for name, value in model.named_parameters()}
    x = np.random.default_rng(0).normal(size=(5, 3))
    report = parity.compare(_quantized(bug), model, x, variables=tree)
    told = [(row.name, row.stage, row.cause_keys) for row in report.divergences]
    assert told == ([] if place is None else [(place, "gradient", [key])])


def test_another_place_is_named_before_the_code_of_another_layer() -> None:
    x = torch.tensor([[2, 7, 1], [8, 2, 8], [1, 8, 2]])
    model = Written(lambda m, x: (x[:, 1], x[:, 2]))  # type: ignore[arg-type, return-value]
    recorder, sinks = torch_graph.of_model(model, (x,), {})
    code = Code.of(recorder.nodes, recorder.constants, (x.numpy(),))
    one, two = (Region(code.graph, code.graph.moved[sink], {}) for sink in sinks)
    problem = Problem(one, two.value(two.sink), 0.0, code.words, code=lambda: iter([("the input of another", two)]))
    found = explaining(problem, families.attempts(problem), 7.0)
    assert [attempt.key for attempt, _ in found] == ["other_item"]
