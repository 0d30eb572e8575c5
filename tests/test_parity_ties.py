"""Gradients are compared at exact zeros and ties too: which of equal values gets the gradient is a convention."""

from collections.abc import Callable
from typing import Any

import flax.linen as flax_nn
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import parity
from parity.reference import torch_ties
from parity.reports.report import Report

FlaxFunction = Callable[[Any], Any]


class FlaxNet(flax_nn.Module):
    """A convolution, what is under test, a dense layer; `leaf` says whether that is a module of its own."""

    function: FlaxFunction
    leaf: bool = False

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = flax_nn.Conv(4, (3, 3), padding="VALID", name="first")(x)
        x = Middle(self.function, name="middle")(x) if self.leaf else self.function(x)
        return flax_nn.Dense(3, name="last")(x.reshape(x.shape[0], -1))


class Middle(flax_nn.Module):
    function: FlaxFunction

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        return self.function(x)


class TorchNet(nn.Module):
    def __init__(self, middle: nn.Module, side: int) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 4, 3), middle, nn.Linear(4 * side**2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)).flatten(1))


def compared(function: FlaxFunction, middle: nn.Module, *, leaf: bool, side: int = 6, dtype: str = "float64") -> Report:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    return parity.compare(FlaxNet(function, leaf), TorchNet(middle, side), x, dtype=dtype)


def maximum(x: Any) -> Any:
    return jnp.maximum(x, jnp.zeros((), x.dtype))


def passing(x: Any) -> Any:
    return jnp.where(x >= 0, x, jnp.zeros((), x.dtype))


def first_tie(x: Any) -> Any:
    return flax_nn.max_pool(x, (2, 2), (2, 2))


def corners(x: Any) -> list[Any]:
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def last_tie(x: Any) -> Any:
    best, *others = corners(x)
    for other in others:
        best = jnp.where(other >= best, other, best)
    return best


def halved_ties(x: Any) -> Any:
    best, *others = corners(x)
    for other in others:
        best = jnp.maximum(best, other)
    return best


class PassingReLU(nn.ReLU):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.where(input >= 0, input, torch.zeros((), dtype=input.dtype))


class LastTie(nn.MaxPool2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        best, *others = (input[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
        for other in others:
            best = torch.where(other >= best, other, best)
        return best


CLEAN: list[tuple[FlaxFunction, Callable[[], nn.Module], int]] = [
    (flax_nn.relu, nn.ReLU, 6),
    (flax_nn.relu, lambda: nn.ReLU(inplace=True), 6),
    (first_tie, lambda: nn.MaxPool2d(2), 3),
    (lambda x: first_tie(flax_nn.relu(x)), lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 3),
    (jnp.tanh, nn.Tanh, 6),
]


# Between the widest and the narrowest.
@pytest.mark.parametrize(
    "dtype", ["float64", pytest.param("float32", marks=(pytest.mark.slow, pytest.mark.matrix)), "bfloat16"]
)
@pytest.mark.parametrize(("function", "middle", "side"), CLEAN)
def test_no_alarm_where_the_conventions_are_the_same(
    function: FlaxFunction, middle: Callable[[], nn.Module], side: int, dtype: str
) -> None:
    report = compared(function, middle(), leaf=False, side=side, dtype=dtype)
    assert report.exit_code == 0, str(report)
    assert any(row.stage == "cotangent at ties" for row in report.rows)


WRONG: list[tuple[FlaxFunction, Callable[[], nn.Module], int, str, str]] = [
    (maximum, nn.ReLU, 6, "JAX", "gradient_kink"),
    (passing, nn.ReLU, 6, "JAX", "gradient_kink"),
    (flax_nn.relu, PassingReLU, 6, "PyTorch", "gradient_kink"),
    (last_tie, lambda: nn.MaxPool2d(2), 3, "JAX", "gradient_ties"),
    (halved_ties, lambda: nn.MaxPool2d(2), 3, "JAX", "gradient_ties"),
    (first_tie, lambda: LastTie(2), 3, "PyTorch", "gradient_ties"),
]


@pytest.mark.parametrize(("function", "middle", "side", "who", "cause"), WRONG)
def test_another_convention_is_found_in_a_layer(
    function: FlaxFunction, middle: Callable[[], nn.Module], side: int, who: str, cause: str
) -> None:
    report = compared(function, middle(), leaf=True, side=side)
    first = report.first_divergence
    assert first is not None, str(report)
    assert (first.name, first.stage) == ("middle", "backward at ties")
    assert first.cause_keys == [cause]
    assert first.causes[0].startswith(f"{who}: ")
    # Nothing else is to blame: neither the layer away from ties, nor the network as a whole.
    assert [row.name for row in report.divergences] == ["middle"]


@pytest.mark.parametrize(("function", "middle", "side", "who", "cause"), [w for w in WRONG if w[3] == "JAX"])
def test_another_convention_is_found_between_layers(
    function: FlaxFunction, middle: Callable[[], nn.Module], side: int, who: str, cause: str
) -> None:
    first = compared(function, middle(), leaf=False, side=side).first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("first", "cotangent at ties")
    assert first.cause_keys == [cause]
    assert first.causes[0].startswith(f"{who}: ")


def test_a_function_that_no_table_knows_is_told_by_its_zeros() -> None:
    # PyTorch's slope at 0 is that of the negative side, JAX's that of the positive one.
    first = compared(flax_nn.leaky_relu, nn.LeakyReLU(), leaf=False).first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("first", ["gradient_kink"])
    assert "only where the input is exactly 0" in first.causes[0]


class TorchApart(nn.Module):
    """How far two layers lie apart, which is at ties often exactly 0."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.abs(self.one(x) - self.two(x)))


class FlaxApart(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        apart = flax_nn.Dense(8, name="one")(x) - flax_nn.Dense(8, name="two")(x)
        return flax_nn.Dense(2, name="last")(jnp.abs(apart))  # of slope 1 at 0, PyTorch's of 0


def test_another_convention_behind_a_difference_of_two_layers() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 3))
    first = parity.compare(FlaxApart(), TorchApart(), x).first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("two", "cotangent at ties", ["gradient_kink"])
    assert "only where what abs gets lies exactly at its kink" in first.causes[0]


def test_what_is_infinite_at_zero_is_told_not_judged() -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.abs().sqrt()

    report = compared(lambda x: jnp.sqrt(jnp.abs(x)), Root(), leaf=False)
    assert report.equal, str(report)
    assert any("infinite or undefined values in first cotangent at ties" in text for text in report.not_exercised)


class Unused(TorchNet):
    """Has the layer, but computes by a function of the same name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)).flatten(1))


def test_a_layer_that_pytorch_has_and_does_not_run_is_told() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    report = parity.compare(FlaxNet(flax_nn.relu, leaf=True), Unused(nn.ReLU(), 6), x)
    missing = report.first_divergence
    assert missing is not None
    assert (missing.name, missing.verdict) == ("middle", "missing")
    assert [row.name for row in report.divergences] == ["middle"]


def test_forward_alone_has_no_ties_to_compare() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    report = parity.compare(FlaxNet(maximum), TorchNet(nn.ReLU(), 6), x, gradients=False)
    assert report.exit_code == 0
    assert not any("ties" in row.stage for row in report.rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tied_values_have_zeros_of_both_signs_and_equal_neighbours(dtype: torch.dtype) -> None:
    y = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y[1] *= 128  # each example by its own size
    made = torch_ties.tied(y.to(dtype)).double()
    for example, values in zip(y, made, strict=True):
        assert 0.2 < float((values == 0).double().mean()) < 0.6
        assert torch.signbit(values[values == 0]).any()
        assert not torch.signbit(values[values == 0]).all()
        assert len(values.unique()) < 12
        assert float((values - example).abs().max()) < float(example.abs().max())
        windows = values.unfold(1, 3, 2).unfold(2, 3, 2).reshape(4, 4, 4, 9)
        assert float(((windows == windows.amax(-1, keepdim=True)).sum(-1) > 1).double().mean()) > 0.3
    whole = torch.tensor([[3, 4]])
    assert torch_ties.tied(whole) is not whole
    assert torch.equal(torch_ties.tied(whole), whole)
    assert torch.equal(torch_ties.tied(torch.zeros(2, 3)), torch.zeros(2, 3))
