"""Where PyTorch computes another form than a function's formula: what either form may give, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

import parity

X = np.random.default_rng(0).normal(size=(6, 3))
ROUNDINGS = 1e-11  # of a whole network in float64


class Curved(nn.Module):
    """Two layers around a function whose values lie near `level`."""

    def __init__(self, function: Callable[[Tensor], Tensor], level: float) -> None:
        super().__init__()
        self.enter, self.leave, self.function, self.level = nn.Linear(3, 4), nn.Linear(4, 2), function, level

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.function(self.enter(x) + self.level) - self.level)


class Ported(nnx.Module):
    def __init__(self, function: Callable[[Any], Any], level: float) -> None:
        rngs, self.function, self.level = nnx.Rngs(0), function, level
        self.enter, self.leave = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.leave(self.function(self.enter(x) + self.level) - self.level)


def _original(function: Callable[[Tensor], Tensor], level: float) -> nn.Module:
    torch.manual_seed(0)
    return Curved(function, level).double()


def _whole(report: parity.Report, stage: str) -> Any:
    """The row from end to end."""
    return next(row for row in report.rows if (row.name, row.stage) == ("end to end", stage))


def _as_function(original: nn.Module, function: Callable[[Any], Any], level: float) -> parity.Report:
    state = {name: tensor.detach().numpy() for name, tensor in original.named_parameters()}

    def ported(tree: dict[str, Any], x: Any) -> Any:
        y = function(x @ tree["enter.weight"].T + tree["enter.bias"] + level) - level
        return y @ tree["leave.weight"].T + tree["leave.bias"]

    return parity.compare(ported, original, X, variables=state)


def test_softplus_above_its_threshold_may_lack_what_pytorch_leaves_out() -> None:
    report = parity.compare(Ported(jax.nn.softplus, 20.5), _original(F.softplus, 20.5), X)
    assert report.exit_code == 0, str(report)
    for stage in ("outputs", "gradients"):
        row = _whole(report, stage)
        assert row.max_error > ROUNDINGS, stage  # nothing would be shown otherwise
        assert row.bound < ROUNDINGS + 1.01 * row.max_error  # that much is left out, and no more is allowed


@pytest.mark.parametrize(
    ("original", "ported", "level"),
    [(F.softplus, jax.nn.softplus, 20.5), (F.hardsigmoid, jax.nn.hard_sigmoid, 0.0)],
)
def test_either_form_is_right_in_a_function(original: Any, ported: Any, level: float, flax_promotes: None) -> None:
    report = _as_function(_original(original, level), ported, level)
    assert report.exit_code in (0, 3) and not report.divergences, str(report)
    assert any(row.max_error > ROUNDINGS for row in report.rows)


def test_a_difference_of_that_size_elsewhere_is_none_that_is_allowed(flax_promotes: None) -> None:
    def a_little_more(x: Any) -> Any:
        return jax.nn.softplus(x) + 1e-9

    for level in (5.0, 20.5):
        first = _as_function(_original(F.softplus, level), a_little_more, level).first_divergence
        assert first is not None and first.stage == "outputs", level
    untouched = parity.compare(Ported(jax.nn.softplus, 5.0), _original(F.softplus, 5.0), X)
    assert [_whole(untouched, stage).bound for stage in ("outputs", "gradients")] == 2 * [pytest.approx(ROUNDINGS)]


def test_a_threshold_that_somebody_chose_lower_is_the_ports_to_make() -> None:
    original = _original(lambda x: F.softplus(x, threshold=5), 6.0)
    first = parity.compare(Ported(jax.nn.softplus, 6.0), original, X).first_divergence
    assert first is not None and (first.name, first.stage) == ("leave", "input")
