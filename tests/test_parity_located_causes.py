"""Mistakes in functions, found from the values that these compute on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import parity
from parity.candidate import function_values
from parity.causes import clock, value_matching
from parity.causes.between_graph import Code
from parity.causes.graph import Region
from parity.causes.jax_values import JaxValues
from parity.reference import torch_graph


def report(model: nn.Module, function: Callable[..., Any], *inputs: Any) -> parity.Report:
    """Of a function whose tree is PyTorch's state, flat."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        torch.manual_seed(0)
        model = model.double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p) / 2)
        tree = {name: jnp.asarray(value.numpy()) for name, value in model.state_dict().items()}
        return parity.compare(function, model, inputs, variables=tree, flax_inputs=inputs, gradients=False)


def causes(model: nn.Module, function: Callable[..., Any], *inputs: Any) -> list[str]:
    """Those of the first divergence."""
    row = report(model, function, *inputs).first_divergence
    assert row is not None
    return list(row.causes)


class Three(nn.Module):
    """Three layers, each of which computes something of what the one before gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for layer in self.layers:
            y = torch.tanh(layer(x))
            total = total + (y**2).sum(-1) / 2
            x = x + y
        return total


@pytest.mark.parametrize("turns", [3, 2])
def test_mistakes_of_every_turn_are_found_one_by_one(turns: int) -> None:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for i in range(3):
            y = jnp.tanh(x @ tree[f"layers.{i}.weight"].T + tree[f"layers.{i}.bias"])
            total = total + ((y**2).mean(-1) if i < turns else (y**2).sum(-1)) / 2
            x = x + y
        return total

    told = causes(Three(), function, np.random.default_rng(0).normal(size=(6, 5)))
    number = "all 3" if turns == 3 else "2"  # of which that is all
    assert len(told) == 1 and re.search(f"pooled by mean, not by sum, and so in {number} places like it", told[0])


def test_two_mistakes_of_different_kinds_are_both_named() -> None:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for i in range(3):
            y = x @ tree[f"layers.{i}.weight"].T + tree[f"layers.{i}.bias"]
            y = y if i == 0 else jnp.tanh(y)
            total = total + (y**2).sum(-1) / 2
            x = y if i == 1 else x + y
        return total

    told = causes(Three(), function, np.random.default_rng(0).normal(size=(6, 5)))
    assert len(told) == 2 and "tanh is left out" in told[0] and "isn't added" in told[1]


def test_causes_of_a_part_alone_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for i in range(3):
            y = x @ tree[f"layers.{i}.weight"].T + tree[f"layers.{i}.bias"]
            y = y if i == 0 else jnp.tanh(y)
            total = total + (y**2).sum(-1) / 2
            x = x + (y if i < 2 else y * jnp.cos(7 * y[:, ::-1]))
        return total + x.sum(-1) * jnp.cos(x[:, 1])

    monkeypatch.setattr(clock, "MOST_SECONDS", 2.0)
    row = report(Three(), function, np.random.default_rng(0).normal(size=(6, 5))).first_divergence
    assert row is not None and "tanh is left out" in row.causes[0]
    assert row.detail == "what is named here explains a part of the difference"


class Turns(nn.Module):
    """A state that is squashed again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, state = self.enter(x), torch.zeros(x.shape[0], 5, dtype=x.dtype)
        for _ in range(3):
            state = torch.tanh(state * 0.7 + x) * 1.3
        return self.leave(state)


def _turned(times: int, factor: float = 0.7) -> Callable[..., jax.Array]:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        x = x @ tree["enter.weight"].T + tree["enter.bias"]

        def step(state: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.tanh(state * factor + x) * 1.3, None

        state, _ = jax.lax.scan(step, jnp.zeros_like(x), None, length=times)
        return state @ tree["leave.weight"].T + tree["leave.bias"]

    return function


@pytest.mark.parametrize(("times", "words"), [(2, "the last one is left out"), (4, "there is one more")])
def test_another_number_of_turns_is_told(times: int, words: str) -> None:
    [told] = causes(Turns(), _turned(times), np.random.default_rng(0).normal(size=(6, 4)))
    assert "of the 3 turns of the loop" in told and words in told


def test_another_number_in_every_turn_is_told() -> None:
    [told] = causes(Turns(), _turned(3, 0.45), np.random.default_rng(0).normal(size=(6, 4)))
    assert "is 0.45, not 0.7" in told and "places like it" in told


def test_values_inside_loops_and_functions_are_seen() -> None:
    def function(x: jax.Array) -> jax.Array:
        def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            return state + row, state * row

        total, _ = jax.lax.scan(step, jnp.zeros(2), x, reverse=True)
        total = jax.lax.while_loop(lambda y: y[0] < 10, lambda y: 2 * y, total)
        return jax.lax.cond(total[0] > 0, jax.jit(jnp.sin), jnp.cos, total)

    rows = np.array([[0.1, 0.2], [0.5, 0.4]])
    with jax.enable_x64(True):
        found = function_values.computed(function, rows)
        result = np.asarray(function(jnp.asarray(rows)))
    for wanted in (rows[1], rows[0] + rows[1], rows[1] * rows[0], 4 * rows.sum(0), np.sin(32 * rows.sum(0)), result):
        assert any(each.shape == wanted.shape and np.allclose(each, wanted, rtol=1e-14) for each in found), wanted


class Weighed(nn.Module):
    """Sums of values that are weighed by what is beside them, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.first = nn.Linear(4, 3), nn.Linear(4, 3), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        k, v, total = self.key(x), self.value(x), torch.zeros(x.shape[0], 3, dtype=x.dtype)
        out = []
        for t in range(x.shape[1]):
            out.append(total + torch.exp(self.first + k[:, t]) * v[:, t])
            total = total + torch.exp(k[:, t]) * v[:, t]
        return torch.stack(out, 1)


def test_another_factor_from_beside_is_told() -> None:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        k = x @ tree["key.weight"].T + tree["key.bias"]
        v = x @ tree["value.weight"].T + tree["value.bias"]

        def step(total: jax.Array, kv: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            more = jnp.exp(tree["first"] + kv[0]) * kv[1]
            return total + more, total + more

        _, out = jax.lax.scan(step, jnp.zeros_like(k[:, 0]), (k.swapaxes(0, 1), v.swapaxes(0, 1)))
        return out.swapaxes(0, 1)

    told = causes(Weighed(), function, np.random.default_rng(0).normal(size=(3, 4, 4)))
    assert len(told) == 1 and "is taken by mul, in PyTorch exp(the output of key)" in told[0]


class Steps(nn.Module):
    """Sizes of steps and two vectors, all made by one layer, and a state that is made with them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.steps = nn.Linear(4, 8), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        size, b, c = self.enter(x).split([2, 3, 3], -1)
        size = torch.nn.functional.softplus(self.steps(size))
        state, out = x.new_zeros(x.shape[0], 4, 3), []
        for t in range(x.shape[1]):
            state = state / 2 + (size[:, t] * x[:, t])[..., None] * b[:, t, None]
            out.append((state * c[:, t, None]).sum(-1))
        return torch.stack(out, 1)


@pytest.mark.parametrize("wrong", ["parts", "bias"])
def test_what_is_first_seen_in_part_is_named(wrong: str) -> None:
    def function(tree: Any, x: jax.Array) -> jax.Array:
        size, b, c = jnp.split(x @ tree["enter.weight"].T + tree["enter.bias"], [2, 5], -1)
        b, c = (c, b) if wrong == "parts" else (b, c)
        size, bias = size @ tree["steps.weight"].T, tree["steps.bias"]
        size = jax.nn.softplus(size) + bias if wrong == "bias" else jax.nn.softplus(size + bias)

        def step(state: jax.Array, now: tuple) -> tuple[jax.Array, jax.Array]:
            drive, b, c = now
            state = state / 2 + drive[..., None] * b[:, None]
            return state, (state * c[:, None]).sum(-1)

        given = tuple(each.swapaxes(0, 1) for each in (size * x, b, c))
        return jax.lax.scan(step, jnp.zeros((x.shape[0], 4, 3)), given)[1].swapaxes(0, 1)

    told = causes(Steps(), function, np.random.default_rng(0).normal(size=(2, 5, 4)))
    parts = "number 2 of the parts of the output of enter is taken, in PyTorch number 1"
    expected = parts if wrong == "parts" else "steps.bias is added to softplus"
    assert re.search(expected, told[0]) and len(told) == 1, told


def test_values_that_are_the_same_for_every_example_are_found_if_they_are_had_once() -> None:
    class Timed(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(t).expand(3, -1).exp() * x

    t, x = np.random.default_rng(0).normal(size=(1, 5)), np.random.default_rng(1).normal(size=(3, 5))
    recorder, sinks = torch_graph.of_model(Timed(), (torch.from_numpy(t), torch.from_numpy(x)), {})
    code = Code.of(recorder.nodes, recorder.constants, (t, x))
    region = Region(code.graph, sinks[0], {})
    found = value_matching.matched(region, JaxValues([np.tanh(t), np.exp(np.tanh(t))]), region, {})
    assert {region.node(p).op: place for p, place in found.items()} == {"tanh": 0, "exp": 1, "mul": None}
