"""Naming what is wrong with the results of a function: PyTorch's model run again in NumPy as a whole, with mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from parity.candidate import function_values
from parity.causes import between_graph, diagnosis
from parity.causes.between_graph import Code
from parity.causes.jax_values import JaxValues
from parity.causes.located import Located
from parity.comparison.request import Request
from parity.reference import torch_graph, torch_tensors
from parity.reports.rows import Row


@dataclass(frozen=True)
class Explainer:
    """One function beside PyTorch's model.

    Attributes:
        request: inputs, precision and the rest.
        model: PyTorch's.
        function: the candidate, of the arguments.
        arguments: of the function, its tree of parameters among them.
    """

    request: Request
    model: nn.Module
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def explain(self, row: Row, i: int, ours: NDArray, theirs: NDArray) -> None:
        """Attach a cause to an output that diverges: a mistake anywhere in the model.

        Args:
            row: of the output.
            i: its number.
            ours: JAX's, in PyTorch's layout.
            theirs: PyTorch's.
        """
        code, sinks, located = self._code
        tolerance = row.bound * float(np.max(np.abs(theirs), initial=0.0))
        causes, complete = [], False
        if located is not None:
            causes, complete = located.explain(code.graph.moved[sinks[i]], ours, tolerance)
        if not complete:  # one mistake that explains everything counts more than some that don't
            whole = code.explain(sinks[i], "output", ours, theirs, tolerance, "output")
            row.detail = "" if whole else "what is named here explains a part of the difference"
            causes = whole or causes
        if not causes:
            row.detail = code.place(sinks[i])
        diagnosis.attach(row, causes)

    @cached_property
    def _code(self) -> tuple[Code, list[int], Located | None]:
        """PyTorch's model as a graph, the nodes of its outputs, and what is found by the function's own values."""
        tensors = torch_tensors.as_tensors(self.request.inputs, self.request.dtype)
        recorder, sinks = torch_graph.of_model(self.model, tensors, self.request.torch_kwargs)
        code = between_graph.Code.of(recorder.nodes, recorder.constants, self.request.inputs)
        if self.request.dtype != "float64":
            return code, sinks, None  # what is rounded so coarsely is found again by chance
        try:
            values = JaxValues(function_values.computed(self.function, *self.arguments))
        except (NotImplementedError, TypeError, ValueError):  # its program can't be gone through
            return code, sinks, None
        return code, sinks, Located(code.graph, values, code.words, clock=code.clock)
