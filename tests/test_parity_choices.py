"""Mistakes of a mixture of experts and of tables between layers, all in one comparison; and what proves nothing."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import parity
from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import GIVEN
from parity.causes.layer.indices import explain as explain_indices
from parity.causes.layer.related import described, scale_factor
from parity.causes.mistakes.attempts import Problem, measured, value
from parity.causes.mistakes.attention.caps import attempts as caps
from parity.causes.mistakes.functions.dropout import dropped
from parity.causes.mistakes.functions.functions import attempts as functions
from parity.causes.mistakes.numbers.measured_factors import attempts as factors
from parity.reference.torch_graph import of_model

pytestmark = pytest.mark.usefixtures("flax_promotes")

WIDTH, EXPERTS, BEST = 6, 5, 2


def angles(length: int) -> np.ndarray:
    return np.arange(1, length + 1)[:, None] * np.exp(np.arange(0, WIDTH, 2) / -WIDTH)


class Calls(nn.Module):
    """One function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TorchRouted(nn.Module):
    """The best two of five experts by a router, weighed by shares of all, made one in sum; positions in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(WIDTH, EXPERTS), nn.Linear(WIDTH, EXPERTS * WIDTH)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        best, chosen = self.router(x).softmax(-1).topk(BEST, -1)
        shares = torch.zeros(*x.shape[:-1], EXPERTS, dtype=x.dtype)
        shares = shares.scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        y = self.head((self.experts(x).unflatten(-1, (EXPERTS, WIDTH)) * shares[..., None]).sum(-2))
        at = torch.from_numpy(angles(len(x)))
        return y * 2.8284271247461903 + torch.stack([at.sin(), at.cos()], -1).flatten(1)


class FlaxRouted(linen.Module):
    bug: str = ""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        bug = self.bug
        logits, experts = linen.Dense(EXPERTS, name="router")(x), linen.Dense(EXPERTS * WIDTH, name="experts")(x)
        shares = jax.nn.softmax(logits, 0 if bug == "over tokens" else -1)
        ranked = -shares if bug == "smallest" else shares
        _, chosen = jax.lax.top_k(ranked, {"one": 1, "all": EXPERTS, "three": 3}.get(bug, BEST))
        best = jnp.take_along_axis(shares, chosen, -1)
        if bug != "not renormalised":
            best = best / best.sum(-1, keepdims=True)
        if bug == "alike":
            best = jnp.full_like(best, 1 / BEST)
        if bug == "softmax twice":
            best = jax.nn.softmax(jnp.take_along_axis(shares, chosen, -1), -1)
            best = best / best.sum(-1, keepdims=True)
        weights = jnp.sum(jax.nn.one_hot(chosen, EXPERTS, dtype=x.dtype) * best[..., None], -2)
        mixed = jnp.sum(experts.reshape(-1, EXPERTS, WIDTH) * weights[..., None], -2)
        y = linen.Dense(WIDTH, name="head")(mixed)
        factor = {"in float32": float(np.float32(8**0.5)), "in bfloat16": 2.828125}.get(bug, 8**0.5)
        sines, cosines = np.sin(angles(len(x))), np.cos(angles(len(x)))
        if bug == "halves":
            return y * factor + np.concatenate([sines, cosines], -1)
        return y * factor + np.stack([cosines, sines] if bug == "cosines first" else [sines, cosines], -1).reshape(
            y.shape
        )


ROUTED = {
    "over tokens": "softmax_axis",
    "smallest": "topk_smallest",
    "one": "topk_count",
    "all": "topk_count",
    "three": "topk_count",
    "not renormalised": "factor_missing",
    "alike": "topk_alike",
    "softmax twice": "topk_softmax",
    "in float32": "float32",
    "in bfloat16": "bfloat16",
    "halves": "halves_for_pairs",
    "cosines first": "sine_cosine",
}


class TorchSide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList([TorchRouted() for _ in range(len(ROUTED) + 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [model(x) for model in self.each]


class FlaxSide(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return [FlaxRouted(bug, name=f"each_{i}")(x) for i, bug in enumerate(("", *ROUTED))]


def test_choices_tables_and_rounded_numbers_are_named() -> None:
    torch.manual_seed(0)
    report = parity.compare(FlaxSide(), TorchSide(), np.random.default_rng(0).normal(size=(4, WIDTH)), gradients=False)
    outputs = iter([row for row in report.rows if row.name == "output" and row.diverges])
    found = {row.name: row for row in report.divergences if row.name != "output"}
    for i, (bug, key) in enumerate(ROUTED.items(), 1):
        row = found.pop(f"each_{i}/head", None) or next(outputs)
        assert row.cause_keys == [key], (bug, row.causes, row.detail)
    assert not found and next(outputs, None) is None


def problem(right: np.ndarray, observed: np.ndarray) -> Problem:
    """One array that is handed on as it comes in."""
    graph = Graph(
        [{"op": GIVEN, "args": {"index": 0}}, {"op": "clone", "args": {"self": {"node": 0}}}], lambda *_: right
    )
    return Problem(Region(graph, 1, {}), observed, 1e-14, str)


@pytest.mark.parametrize(("function", "key"), [("softsign", "activation_tanh"), ("tanhshrink", "activation_tanh")])
def test_functions_that_pytorch_takes_apart_are_one(function: str, key: str) -> None:
    """No two mistakes in their parts stand for one in the whole: a hard tanh of 1 + |x| is 1."""
    x = np.random.default_rng(0).normal(size=(3, 4))
    tensor = torch.from_numpy(x)
    recorder, (sink,) = of_model(Calls(getattr(torch.nn.functional, function)), (tensor,), {})
    graph = Graph(recorder.nodes, lambda *_: x)
    region = Region(graph, graph.moved[sink], {})
    assert [region.node(p).op for p in region.operations][-1] == function
    wrong = Problem(region, np.tanh(x), 1e-14, str)
    assert key in [each.key for each in functions(wrong) if wrong.left(each.changes) == 0]


@pytest.mark.parametrize("values", [[1.7], [1.7, 1.7, 1.7, 1.7], [1.7, -0.4]])
def test_too_few_values_prove_no_number(values: list[float]) -> None:
    right = np.asarray(values)
    wrong = problem(right, right * 0.31)
    assert measured(wrong, lambda c: {1: value(c * right)}, 1.0, 1.0) is None
    assert all("as the" in each.text for each in factors(wrong))  # sums for means, which aren't found from the values
    assert not [each for each in caps(wrong) if "0." in each.text]
    assert not [*dropped(problem(right, np.where(np.arange(len(right)) == 0, 0.0, right * 1.25)))]


def test_several_values_prove_one_but_never_one_time() -> None:
    right = np.random.default_rng(0).normal(size=(3, 4))
    assert [each.key for each in factors(problem(right, right * 0.31))] == ["scaled", "scaled"]  # of either node
    assert not [*factors(problem(right, right * (1 + 1e-8)))]
    lost = np.where(np.arange(12).reshape(3, 4) % 5 == 0, 0.0, right)
    assert [each.key for each in dropped(problem(right, lost))] == ["zeroed"]
    assert [each.key for each in dropped(problem(right, lost / 0.8))] == ["dropout_at_test"]


def test_weights_and_indices_of_one_value_have_no_factor() -> None:
    one, two = np.asarray([2.3]), np.asarray([3.1])
    assert scale_factor(one, two) is None and scale_factor(np.full(4, 2.0), np.full(4, 3.0)) is None
    assert scale_factor(np.asarray([1.0, 2.0]), np.asarray([1.0, 2.0]) * (1 + 1e-9)) is None
    assert described("bias", one, two).key == "bias_differs"
    assert explain_indices(np.asarray([5]), np.asarray([2])) == []
    assert [cause.key for cause in explain_indices(np.asarray([5, 7]), np.asarray([2, 4]))] == ["index_offset"]
