"""Two mistakes between the same two layers, and softmax however PyTorch writes it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.causes import clock
from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import GIVEN
from parity.causes.mistakes.attempts import Problem
from parity.reports.rows import Row

WIDTH, PLACES = 6, 4
INPUTS = np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
ENDED = "the search for causes ended after 0 s of computing, before all had been tried"
FUTURE = np.triu(np.ones((PLACES, PLACES), bool), 1)


class Original(nn.Module):
    """One head of attention with a residual and a gate behind it; `way` is how the softmax is written."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT / math.sqrt(WIDTH)
        scores = scores.masked_fill(torch.tensor(FUTURE), -torch.inf)
        if self.way == "powers":
            powers = (scores - scores.max(-1, keepdim=True).values).exp()
            shares = powers / powers.sum(-1, keepdim=True)
        elif self.way == "logarithm":
            shares = (scores - scores.logsumexp(-1, keepdim=True)).exp()
        else:
            shares = scores.softmax(-1)
        return self.out(torch.nn.functional.gelu(shares @ self.value(x)) + x)


class Ported(nnx.Module):
    def __init__(self, bugs: tuple[str, ...]) -> None:
        self.bugs = bugs
        self.query, self.key, self.value, self.out = (nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0)) for _ in range(4))

    def __call__(self, x: Any) -> Any:
        bugs = self.bugs
        scores = self.query(x) @ self.key(x).swapaxes(-1, -2) / (1 if "unscaled" in bugs else math.sqrt(WIDTH))
        scores = jnp.where(FUTURE.T if "past" in bugs else FUTURE, -jnp.inf, scores)
        axis = -2 if "queries" in bugs else 0 if "examples" in bugs else -1
        mixed = jax.nn.softmax(scores, axis) @ self.value(x)
        mixed = nnx.relu(mixed) if "relu" in bugs else jax.nn.gelu(mixed, approximate=False)
        if "unknown" in bugs:
            mixed = mixed + 0.1 * np.random.default_rng(1).normal(size=mixed.shape)
        return self.out(mixed if "no residual" in bugs else mixed + x)


def told(*bugs: str, way: str = "") -> Row:
    """The one row that differs."""
    torch.manual_seed(0)
    report = parity.compare(Ported(bugs), Original(way), INPUTS, gradients=False)
    [row] = report.divergences
    assert (row.name, row.stage) == ("out", "input")
    return row


@pytest.mark.parametrize(
    ("bugs", "keys"),
    [
        (("unscaled", "queries"), ["attention_scale", "softmax_axis"]),
        (("past", "no residual"), ["mask_transposed", "term_missing"]),
        (("unscaled", "relu"), ["attention_scale", "activation_relu"]),
        (("relu", "no residual"), ["activation_relu", "term_missing"]),
    ],
    ids=" and ".join,
)
def test_two_mistakes_at_once_are_both_named(bugs: tuple[str, ...], keys: list[str]):
    """In the order in which PyTorch runs what they change, each said to be one of two."""
    row = told(*bugs)
    assert row.cause_keys == keys
    assert all("one of two mistakes at once (undone, the difference falls" in cause for cause in row.causes)


def test_what_no_two_mistakes_explain_has_no_cause():
    """Noise beside a mistake, say. All was tried: nothing is said of an end of the search."""
    row = told("unscaled", "unknown")
    assert row.causes == [] and "PyTorch ran" in row.detail and "ended" not in row.detail


def test_a_search_that_its_time_ended_says_so(monkeypatch: pytest.MonkeyPatch):
    """Between layers, in a whole function and among its gradients."""
    monkeypatch.setattr(clock, "MOST_SECONDS", 0.0)
    row = told("unscaled")
    assert row.causes == [] and row.detail.endswith(ENDED)
    torch.manual_seed(0)
    model = nn.Linear(WIDTH, WIDTH).double()
    tree = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def wrong(tree: dict[str, Any], x: jax.Array) -> jax.Array:
        return x @ tree["weight"].T - tree["bias"][None, None]

    def wrong_backward(tree: dict[str, Any], x: jax.Array) -> jax.Array:
        noisy = tree["weight"] * np.random.default_rng(1).normal(size=(WIDTH, WIDTH))
        return x @ (jax.lax.stop_gradient(tree["weight"] - noisy) + noisy).T + tree["bias"][None, None]

    for function in (wrong, wrong_backward):
        first = parity.compare(function, model, INPUTS, variables=tree).first_divergence
        assert first is not None and first.causes == [] and first.detail.endswith(ENDED), function


def test_mistakes_that_make_the_same_of_a_place_are_tried_once():
    x = np.linspace(-1.0, 1.0, 7)
    nodes = [{"op": GIVEN, "args": {"index": 0}}, *({"op": "tanh", "args": {"self": {"node": i}}} for i in range(3))]
    region = Region(Graph(nodes, lambda place, node: x), 3, {})
    problem = Problem(region, np.zeros(7), 1e-14, str)
    left = problem.left({1: lambda get: 2 * get(1)})
    work = region.work
    assert problem.left({1: lambda get: get(1) + get(1)}) == left and region.work == work
    assert problem.left({1: lambda get: 3 * get(1)}) != left and region.work > work


@pytest.mark.parametrize("way", ["", "powers", "logarithm"])
def test_a_softmax_over_another_axis_is_named_however_it_is_written(way: str):
    """By one operation, by exponentials over their sum, by a logarithm of sums."""
    assert told("queries", way=way).causes[0].startswith("JAX: the softmax runs over queries, not over keys")


def test_a_mistake_is_named_by_where_it_gives_no_numbers():
    """Shares among examples of what all of them mask are not numbers, the others are."""
    row = told("examples")
    assert "not finite" in row.detail
    assert row.causes[0].startswith("JAX: the softmax runs over examples, not over keys")
