"""Soft caps of logits, c tanh(x / c): left out, at another value, too many, forward and backward; two mistakes."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import parity
from parity.reports.report import Report

pytestmark = pytest.mark.usefixtures("flax_promotes")


class Original(nn.Module):
    def __init__(self, cap: float | None) -> None:
        super().__init__()
        self.norm, self.up, self.head, self.cap = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 5), cap

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(torch.relu(self.up(self.norm(x))))
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class Port(linen.Module):
    last: Callable[[Any], Any]
    epsilon: float = 1e-5
    bias: float = 0.0

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.LayerNorm(epsilon=self.epsilon, name="norm")(x)
        x = jax.nn.relu(linen.Dense(8, name="up")(x)) + self.bias
        return self.last(linen.Dense(5, name="head")(x))


def capped(cap: float) -> Callable[[Any], Any]:
    return lambda x: cap * jnp.tanh(x / cap)


def compared(original: float | None, port: Port) -> Report:
    torch.manual_seed(0)
    model = Original(original).double()
    with torch.no_grad():
        model.head.weight *= 10
    return parity.compare(port, model, np.random.default_rng(0).normal(size=(4, 6)))


@pytest.mark.parametrize(
    ("theirs", "ours", "key", "words"),
    [
        (3.0, lambda x: x, "softcap_missing", "isn't capped by tanh, at 3"),
        (3.0, capped(5.0), "softcap", "is capped at 5, not at 3"),
        (3.0, capped(2.5), "softcap", "is capped at 2.5, not at 3"),
        (None, capped(30.0), "softcap_added", "is capped at 30 by tanh"),
        (None, capped(7.0), "softcap_added", "is capped at 7 by tanh"),
    ],
)
def test_a_wrong_cap_is_named(theirs: float | None, ours: Callable, key: str, words: str) -> None:
    first = compared(theirs, Port(ours)).first_divergence
    assert first is not None and (first.name, first.stage) == ("output", "input")
    assert first.cause_keys == [key] and words in first.causes[0], (first.causes, first.detail)


def test_a_cap_that_gradients_pass_by_is_named() -> None:
    def straight(x: Any) -> Any:
        return x + jax.lax.stop_gradient(capped(3.0)(x) - x)

    report = compared(3.0, Port(straight))
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("head", "cotangent")
    assert any("as if it weren't there" in cause for cause in first.causes), (first.causes, first.detail)


def test_the_same_cap_is_equal() -> None:
    assert compared(3.0, Port(capped(3.0))).equal


def test_of_two_mistakes_in_two_layers_each_is_named() -> None:
    report = compared(3.0, Port(lambda x: x, epsilon=1e-6))
    named = {(row.name, row.stage): row.cause_keys for row in report.divergences}
    assert named == {("norm", "forward"): ["epsilon"], ("output", "input"): ["softcap_missing"]}
    report = compared(3.0, Port(capped(5.0), bias=0.5))
    named = {(row.name, row.stage): row.cause_keys for row in report.divergences}
    assert named == {("head", "input"): ["number_added"], ("output", "input"): ["softcap"]}
