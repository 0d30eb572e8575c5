"""Gradients of biases in bfloat16, which JAX adds up in bfloat16 and PyTorch in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.bounds.ratio import squared_partial_sums
from parity.reports.report import Report
from parity.reports.rows import Row


class Original(nn.Module):
    """Its mean over places hands the first layer's bias one gradient at each of them: terms of one sign."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).mean(0, keepdim=True))


class Ported(nnx.Module):
    def __init__(self) -> None:
        self.first, self.last = nnx.Linear(8, 32, rngs=nnx.Rngs(0)), nnx.Linear(32, 3, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return self.last(self.first(x).mean(0, keepdims=True))


def compared(places: int) -> tuple[Report, Row]:
    """The report in bfloat16, and its row of the first bias's gradient.

    Places lie along one axis: over two, jaxlib 0.12 adds products in bfloat16 on CPUs, too, in the kernel's gradient.
    """
    torch.manual_seed(0)
    inputs = np.random.default_rng(0).normal(size=(places, 8))
    report = parity.compare(Ported(), Original(), inputs, dtype="bfloat16")
    [row] = [row for row in report.rows if (row.name, row.stage) == ("first", "backward:bias")]
    return report, row


def test_the_roundings_of_a_sum_in_bfloat16_are_no_difference():
    """98 terms: JAX errs by many times what PyTorch does, and by no more than its additions round off."""
    report, row = compared(98)
    assert report.equal, report
    assert row.ratio is not None and row.ratio > 8


def test_a_sum_in_bfloat16_that_stops_growing_is_named():
    """800 terms, of which bfloat16 can't count more than 256."""
    report, row = compared(800)
    assert report.divergences == [row]
    assert row.cause_keys == ["bfloat16"]
    assert row.causes[0].startswith("JAX: adds 800 terms up in bfloat16 (reduce_sum), which may stop growing")


def test_the_deviations_of_sums_are_those_that_sums_have():
    """In sequence, rounded to bfloat16's 8 bits at each addition, for terms of one sign and for others."""
    rng = np.random.default_rng(0)
    for mean in (1.0, 0.0):
        terms = rng.normal(mean, 0.3, size=(60, 4000))
        total, exact = np.zeros(4000), terms.sum(0)
        for term in terms:
            fraction, exponent = np.frexp(total + term)
            total = np.ldexp(np.round(fraction * 2.0**8) / 2.0**8, exponent)
        said = 2.0**-8 * np.sqrt(squared_partial_sums(60, terms.mean(0), terms.var(0)))
        assert 0.3 < np.std(total - exact) / np.sqrt(np.mean(said**2)) < 1
