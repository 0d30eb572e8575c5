"""A layer that one side calls once on an input, and the other side several times: the same function."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.reports.report import Report

pytestmark = pytest.mark.usefixtures("flax_promotes")
Y = np.random.default_rng(0).normal(size=(3, 5, 4))
X, Z = Y[:1].repeat(2, 0) + Y[:2], Y[1:]


def keys_and_values(norm: Callable, key: Callable, value: Callable, x: Any, calls: int) -> Any:
    """A norm's result in two places, from one call or from one for each."""
    first = norm(x)
    return key(first) + value(norm(x) if calls == 2 else first)


class Original(nn.Module):
    def __init__(self, calls: int, behind: bool = False) -> None:
        super().__init__()
        self.norm, self.key, self.value = nn.LayerNorm(4), nn.Linear(4, 3), nn.Linear(4, 3)
        self.calls, self.behind = calls, behind
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """With the norm of z before those of x, or behind them."""
        factor = None if self.behind else self.norm(z)
        y = keys_and_values(self.norm, self.key, self.value, x, self.calls)
        return torch.tanh(y) * (self.norm(z) if factor is None else factor).sum(-1, keepdim=True)


class InLinen(linen.Module):
    calls: int
    epsilon: float = 1e-5
    bug: str = ""

    @linen.compact
    def __call__(self, x: Any, z: Any) -> Any:
        norm = linen.LayerNorm(epsilon=self.epsilon, name="norm")
        z = norm(z).sum(-1, keepdims=True)
        key, value = linen.Dense(3, name="key"), linen.Dense(3, name="value")
        if self.bug == "left out":
            return jnp.tanh(key(norm(x)) + value(x)) * z
        return jnp.tanh(keys_and_values(norm, key, value, x, self.calls)) * z


class InNnx(nnx.Module):
    def __init__(self, calls: int, epsilon: float = 1e-5, bug: str = "") -> None:
        rngs = nnx.Rngs(0)
        self.norm = nnx.LayerNorm(4, epsilon=epsilon, rngs=rngs)
        self.key, self.value = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.calls, self.bug = calls, bug

    def __call__(self, x: jax.Array, z: jax.Array) -> jax.Array:
        if self.bug == "detached":
            shared = self.norm(x)
            y = self.key(shared) + self.value(jax.lax.stop_gradient(shared))
        else:
            y = keys_and_values(self.norm, self.key, self.value, x, self.calls)
        return jnp.tanh(y) * self.norm(x if self.bug == "of another" else z).sum(-1, keepdims=True)  # behind the others


def compared(port: Any, calls: int, dtype: str = "float64") -> Report:
    torch.manual_seed(0)
    original = Original(calls, behind=not isinstance(port, InLinen)).to(getattr(torch, dtype))
    return parity.compare(port, original, (X, Z), flax_inputs=(X, Z), dtype=dtype)


@pytest.mark.parametrize(("theirs", "ours"), [(2, 1), (1, 2), (2, 2), (1, 1)])
@pytest.mark.parametrize("port", [InLinen, InNnx])
def test_one_call_stands_for_several_on_the_same_input(port: Any, theirs: int, ours: int) -> None:
    report = compared(port(ours), theirs)
    assert report.equal, str(report)
    assert {row.stage for row in report.rows if row.name == "norm"} >= {"forward", "backward", "cotangent"}


def test_in_float32_too() -> None:
    report = compared(InLinen(1), 2, dtype="float32")
    assert report.equal, str(report)


@pytest.mark.parametrize(("theirs", "ours"), [(2, 1), (1, 2)])
def test_a_mistake_in_the_layer_is_found_all_the_same(theirs: int, ours: int) -> None:
    first = compared(InLinen(ours, epsilon=1e-6), theirs).first_divergence
    assert first is not None and (first.name, first.stage) == ("norm", "forward")
    assert any("epsilon is 1e-06, not 1e-05" in cause for cause in first.causes)


def test_a_call_that_is_left_out_shows_where_its_result_is_missed() -> None:
    first = compared(InLinen(1, bug="left out"), 2).first_divergence
    assert first is not None and (first.name, first.stage) == ("value", "input"), first


def test_one_of_the_gradients_missing_shows() -> None:
    first = compared(InNnx(1, bug="detached"), 2).first_divergence
    assert first is not None and (first.name, first.stage) == ("norm", "cotangent"), first


def test_another_input_is_no_repeat() -> None:
    first = compared(InNnx(2, bug="of another"), 2).first_divergence
    assert first is not None and (first.name, first.stage) == ("norm", "input"), first
