"""Functions of tensors as models, and the cause that is named for what one gives where another is the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parity.causes.between.between_graph import Code
from parity.reference import torch_graph

WIDTH = 4


class Written(nn.Module):
    """A function of tensors as a model, with parameters to use in it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.one, self.two, self.three = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.kernel = nn.LayerNorm(WIDTH), nn.Parameter(torch.randn(WIDTH, WIDTH, 3))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def named(
    right: Callable[..., Tensor], wrong: Callable[..., Tensor], *shapes: tuple[int, ...] | Any, share: float = 1e-11
) -> str:
    """The cause that is named for what one function gives where the other is the reference.

    Differences up to `share` of the largest value count as none.
    """
    torch.manual_seed(0)
    model = Written(right).double()
    inputs = tuple(torch.randn(s, dtype=torch.float64) if isinstance(s, tuple) else torch.tensor(s) for s in shapes)
    with torch.no_grad():
        reference, ours = (np.asarray(f(model, *inputs)) for f in (right, wrong))
    recorder, sinks = torch_graph.of_model(model, inputs, {})
    code = Code.of(recorder.nodes, recorder.constants, tuple(np.asarray(x) for x in inputs))
    tolerance = share * max(float(np.abs(reference).max()), 1e-3)
    causes = code.explain(sinks[0], "output", ours, reference, tolerance, "output")
    return f"{causes[0].key}: {causes[0].text}" if causes else "none"
