"""A library's own layer as the whole model, and layers in a model whose paths are those of others' parts."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import parity

pytestmark = pytest.mark.usefixtures("flax_promotes")

VALUES = np.random.default_rng(0).normal(size=(2, 4, 3))
MAPS = np.random.default_rng(0).normal(size=(2, 3, 5, 5))


def recurrent() -> nn.GRU:
    """With weights by which what it gives is the same with its axes exchanged, once it is rounded to have ties."""
    with torch.random.fork_rng():
        torch.manual_seed(75)
        return nn.GRU(3, 2, batch_first=True)


@pytest.mark.parametrize(
    ("ported", "original", "inputs"),
    [
        (lambda: linen.Dense(5), nn.Linear(3, 5), VALUES),
        (lambda: linen.Conv(2, (3, 3), padding="VALID"), nn.Conv2d(3, 2, 3), MAPS),
        (lambda: linen.LayerNorm(epsilon=1e-5), nn.LayerNorm(3), VALUES),
        (lambda: linen.Dense(5), nn.Sequential(nn.Linear(3, 5)), VALUES),
        (lambda: linen.Sequential([linen.Dense(5)]), nn.Linear(3, 5), VALUES),
        (lambda: linen.RNN(linen.GRUCell(2)), recurrent(), VALUES),
        (lambda: nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nn.Sequential(nn.Linear(3, 5)), VALUES),
    ],
    ids=["dense", "conv", "norm", "wrapped by PyTorch", "wrapped by Flax", "rnn", "nnx"],
)
def test_a_layer_is_a_model(ported: Callable[[], Any], original: nn.Module, inputs: np.ndarray):
    """Whatever library it is of, and whatever wraps the other side's, forward and backward."""
    report = parity.compare(ported(), original, inputs)
    assert report.equal, report
    assert {row.stage for row in report.rows} >= {"forward", "backward"}


def test_a_layer_alone_with_a_mistake_has_its_cause():
    """Its epsilon, say."""
    report = parity.compare(linen.LayerNorm(epsilon=1e-3), nn.LayerNorm(3), VALUES)
    assert report.first_divergence is not None and report.first_divergence.stage == "forward"
    assert report.first_divergence.causes[0].startswith("JAX: epsilon is 0.001, not 1e-05")


def test_a_layer_may_have_the_name_of_a_part_of_another():
    """The recurrent layer's own `cell` isn't the model's."""

    class Ported(linen.Module):
        def setup(self) -> None:
            self.cell = linen.Dense(4)
            self.rnn = linen.RNN(linen.OptimizedLSTMCell(2, parent=None))

        def __call__(self, x: Any) -> Any:
            return self.rnn(self.cell(x))

    class Original(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.rnn = nn.Linear(3, 4), nn.LSTM(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(self.cell(x))[0]

    report = parity.compare(Ported(), Original(), VALUES)
    assert report.equal, report
