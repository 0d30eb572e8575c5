"""Causes in code that is written out by hand, in kinds of models that no port in the zoo is of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity.bounds.torch_rounding import RunningError
from parity.reference import torch_graph
from tests.written_models import WIDTH, named

SHAPE = (2, 3, WIDTH)


def _rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def _standard(m: Any, x: Tensor, unbiased: bool = True, inside: bool = False) -> Tensor:
    deviation = m.one(x).std(-1, keepdim=True, unbiased=unbiased)
    return m.one(x) / ((deviation**2 + 1e-3).sqrt() if inside else deviation + 1e-3)


def _rooted(m: Any, x: Tensor, outside: bool = False) -> Tensor:
    size = m.one(x).square().mean(-1, keepdim=True)
    return m.one(x) / (size.sqrt() + 1e-3 if outside else (size + 1e-3).sqrt())


def _kept(m: Any, x: Tensor, diagonal: int = 0, transposed: bool = False) -> Tensor:
    keep = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
    keep = keep.triu(-diagonal) if transposed else keep.tril(diagonal)
    return (m.one(x) @ x.mT).masked_fill(~keep, 0.0) @ m.two(x)


def _decayed(m: Any, x: Tensor, base: float = 2.0) -> Tensor:
    return m.one(x) * base ** (-torch.arange(WIDTH, dtype=x.dtype) - 1)


def _normed(m: Any, x: Tensor, behind: bool = False) -> Tensor:
    gate, y = torch.tanh(m.two(x)), m.one(x)
    apart = (*x.shape[:2], 2, -1)
    return _rms((gate * y).view(apart)).view(x.shape) if behind else gate * _rms(y.view(apart)).reshape(x.shape)


def _attended(m: Any, x: Tensor, of_sum: bool = False) -> Tensor:
    q = x + torch.tanh(x)
    return torch.softmax(m.one(q) @ m.two(q).mT, -1) @ m.three(q if of_sum else x)


CASES = {
    "variance": (_standard, lambda m, x: _standard(m, x, unbiased=False), [SHAPE]),
    "epsilon_placed: under the root": (_standard, lambda m, x: _standard(m, x, inside=True), [SHAPE]),
    "epsilon_placed: outside of it": (_rooted, lambda m, x: _rooted(m, x, outside=True), [SHAPE]),
    "epsilon": (
        lambda m, x: m.one(x) * torch.rsqrt(m.one(x).square().mean(-1, keepdim=True) + 1e-3),
        lambda m, x: m.one(x) * torch.rsqrt(m.one(x).square().mean(-1, keepdim=True) + 1e-5),
        [SHAPE],
    ),
    "dilation": (
        lambda m, x: F.conv1d(x, m.kernel, padding=2, dilation=2),
        lambda m, x: F.conv1d(x, m.kernel, padding=1),
        [(2, WIDTH, 6)],
    ),
    "dilation: padded outside": (
        lambda m, x: F.conv1d(F.pad(x, (4, 0)), m.kernel, dilation=2),
        lambda m, x: F.conv1d(F.pad(x, (2, 0)), m.kernel),
        [(2, WIDTH, 6)],
    ),
    "slice_offset": (
        lambda m, x: F.conv1d(x, m.kernel, padding=6, dilation=3)[..., :7],
        lambda m, x: F.conv1d(x, m.kernel, padding=3, dilation=3),
        [(2, WIDTH, 7)],
    ),
    "bias_missing": (
        lambda m, x: torch.tanh(m.one(x)),
        lambda m, x: torch.tanh(m.one(x) - m.one.bias),
        [SHAPE],
    ),
    "relu_added": (
        lambda m, x: m.two(m.one(x).tanh()) * x,
        lambda m, x: m.two(m.one(x).tanh()).relu() * x,
        [SHAPE],
    ),
    "bias_twice": (lambda m, x: torch.tanh(m.one(x)), lambda m, x: torch.tanh(m.one(x) + m.one.bias), [SHAPE]),
    "kernel_transposed": (
        lambda m, x: torch.tanh(m.one(x)),
        lambda m, x: torch.tanh(F.linear(x, m.one.weight.T, m.one.bias)),
        [SHAPE],
    ),
    "other_layer": (
        lambda m, x: m.three(m.one(x).sin()) * m.two(x).tanh(),
        lambda m, x: m.three(m.two(x).sin()) * m.two(x).tanh(),
        [SHAPE],
    ),
    "other_parameter": (
        lambda m, x: torch.tanh(x * m.one.bias) * m.two.bias,
        lambda m, x: torch.tanh(x * m.two.bias) * m.two.bias,
        [SHAPE],
    ),
    "other_input": (_attended, lambda m, x: _attended(m, x, of_sum=True), [SHAPE]),
    "mask_off_by_one": (_kept, lambda m, x: _kept(m, x, diagonal=-1), [SHAPE]),
    "mask_transposed": (_kept, lambda m, x: _kept(m, x, transposed=True), [SHAPE]),
    "comparison": (
        lambda m, x: torch.where(torch.arange(3)[:, None] <= torch.arange(WIDTH), m.one(x), m.two(x)),
        lambda m, x: torch.where(torch.arange(3)[:, None] < torch.arange(WIDTH), m.one(x), m.two(x)),
        [SHAPE],
    ),
    "shift_sign": (
        lambda m, x: m.one(x) + 2 * torch.cat([torch.zeros_like(x[:, :1]), m.two(x)[:, :-1]], 1),
        lambda m, x: m.one(x) + 2 * torch.cat([m.two(x)[:, 1:], torch.zeros_like(x[:, :1])], 1),
        [SHAPE],
    ),
    "shift_rolled": (
        lambda m, x: m.one(x) + 2 * F.pad(m.two(x), (0, 0, 1, -1)),
        lambda m, x: m.one(x) + 2 * m.two(x).roll(1, 1),
        [SHAPE],
    ),
    "power_base": (_decayed, lambda m, x: _decayed(m, x, 10.0), [SHAPE]),
    "scale_root": (
        lambda m, x: (m.one(x) * 6**-0.5).view(2, 3, 2, 2).tanh(),
        lambda m, x: (m.one(x) * 4**-0.5).view(2, 3, 2, 2).tanh(),
        [SHAPE],
    ),
    "exponent": (lambda m, x: m.one(x).relu() ** 2, lambda m, x: m.one(x).relu() ** 3, [SHAPE]),
    "norm_moved": (_normed, lambda m, x: _normed(m, x, behind=True), [SHAPE]),
    "pool_axis": (
        lambda m, x: x.view(2, 3, 2, 2) / x.view(2, 3, 2, 2).abs().mean(-1, keepdim=True),
        lambda m, x: x.view(2, 3, 2, 2) / x.view(2, 3, 2, 2).abs().mean((-2, -1), keepdim=True),
        [SHAPE],
    ),
    "factors_exchanged": (
        lambda m, x: m.one.bias * m.one(x) + (1 - m.one.bias) * m.two(x),
        lambda m, x: (1 - m.one.bias) * m.one(x) + m.one.bias * m.two(x),
        [SHAPE],
    ),
    "factor_added": (
        lambda m, x: (x.tanh() + m.one(x) * m.two.bias).sum(-1),
        lambda m, x: (x.tanh() + m.one(x) * m.two.bias * x.tanh()).sum(-1),
        [SHAPE],
    ),
    "constant_values": (
        lambda m, x: torch.tanh(m.one(x) * torch.tensor([0.5, 0.25, 2.0, 3.0], dtype=x.dtype)),
        lambda m, x: torch.tanh(m.one(x) * torch.tensor([0.5, 0.125, 2.5, 4.0], dtype=x.dtype)),
        [(5, 6, WIDTH)],
    ),
}


@pytest.mark.parametrize("key", CASES)
def test_what_code_by_hand_gets_wrong_is_named(key: str) -> None:
    right, wrong, shapes = CASES[key]
    told = named(right, wrong, *shapes)
    assert told.startswith(key.partition(":")[0]), told


def _stacked(m: Any, x: Tensor, wrong: bool = False) -> Tensor:
    """One line that runs twice among other sums, and norms of several numbers of groups."""
    x = x + m.one(x).tanh()
    for layer in (m.two, m.three):
        x = _joined(x, layer(x), 0.0 if wrong else 1.0)
        x = x + torch.sigmoid(x)
    return x + x.sin() + x.cos()


def _joined(x: Tensor, more: Tensor, share: float) -> Tensor:
    return torch.tanh(x) + more if share else torch.tanh(x)


def test_a_mistake_in_one_line_that_runs_several_times_is_made_in_all_of_them() -> None:
    told = named(_stacked, lambda m, x: _stacked(m, x, wrong=True), SHAPE)
    assert told.startswith("term_missing") and "all 2 places" in told, told


def _grouped(m: Any, x: Tensor, groups: tuple[int, int] = (2, 2)) -> Tensor:
    wide = torch.cat([x, x.tanh(), m.one(x)], -1)
    return F.group_norm(m.one(F.group_norm(x.flatten(0, 1), groups[0])), 1).repeat(1, 3) + F.group_norm(
        wide.flatten(0, 1), groups[1]
    )


def test_the_same_number_in_places_where_others_may_stand_is_one_mistake() -> None:
    told = named(_grouped, lambda m, x: _grouped(m, x, (4, 4)), SHAPE)
    assert told.startswith("groups: there are 4 groups, not 2") and "2 places" in told, told


def test_what_is_infinite_on_both_sides_brings_no_error() -> None:
    mode = RunningError(torch.float64)
    decay = torch.tensor([-0.3, -0.7], dtype=torch.float64)
    with mode:
        rate = torch.log(torch.exp(decay))
        far = torch.arange(3, dtype=torch.float64).masked_fill(torch.tensor([False, False, True]), float("inf"))
        kept = torch.exp(far * rate[:, None])
    error = mode.get(kept).error
    assert error is not None and bool(torch.isfinite(error).all()) and float(error.max()) < 1e-14
    with mode:
        uncertain = torch.exp(far * (rate - rate)[:, None])
    assert bool(torch.isinf(torch.as_tensor(mode.get(uncertain).error)[:, 2]).all())


class Lined(nn.Module):
    """Two operations of one line, one of another."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x.tanh()
        return x + 1


def test_operations_know_the_line_of_the_models_code_that_ran_them() -> None:
    recorder, _ = torch_graph.of_model(Lined(), (torch.randn(2),), {})
    lines: dict[str, list[int]] = {}
    for node in recorder.nodes:
        lines.setdefault(node["op"], []).append(node["line"])
    assert len(set(lines["tanh"])) == 1 and lines["add"] != lines["tanh"][:1]
