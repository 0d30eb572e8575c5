"""The rows of a function's report: its parameters' values, what it gives, and its gradients, each judged as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.bounds.judging import judge_together, judge_value
from parity.bounds.magnitudes import UNIT_ROUNDOFF, normwise_limit
from parity.candidate.function_parameters import Parameter, with_stacks
from parity.kinds import layouts
from parity.reference import torch_tensors
from parity.reports.rows import Row, compare_arrays, fill


def row_of(name: str, dtype: str, what: str, stage: str, ours: Any, theirs: NDArray, more: float = 0.0) -> Row:
    """Of an output or a gradient: both sides' arrays, held to a whole network's limit, and what is allowed besides."""
    row = Row(name, what, what, stage, dtype)
    fill(row, judge_together({"": np.asarray(ours)}, {"": theirs}, normwise_limit(dtype) + more))
    row.n = round(row.bound / UNIT_ROUNDOFF[dtype])
    row.shape = tuple(np.shape(ours))
    return row


# A gradient that is 0 in exact arithmetic comes out as so many roundings of the largest one, about. In half precision,
# where a network's own small gradients aren't far below the largest, fewer are believed.
_OF_NOTHING, _OF_NOTHING_IN_HALF = 64.0, 4.0


def _vanishes(largest: float, dtype: str, *gradients: Any) -> bool:
    """Whether gradients are the roundings of nothing: a bias that a softmax or a norm takes away again has none."""
    roundings = _OF_NOTHING if dtype in ("float64", "float32") else _OF_NOTHING_IN_HALF
    limit = roundings * UNIT_ROUNDOFF[dtype] * largest
    return all(float(np.linalg.norm(np.asarray(g, np.float64))) <= limit for g in gradients)


def weight_row(name: str, dtype: str, parameter: Parameter, ours: dict[str, Any], state: dict[str, NDArray]) -> Row:
    """Of a parameter: the tree's value, and PyTorch's in its layout, which must be the same."""
    row = Row(name, parameter.name, parameter.torch_name, "weights", dtype)
    return compare_arrays(row, np.asarray(ours[parameter.name]), parameter.value(state), None)


def gradients_of(model: nn.Module) -> dict[str, NDArray]:
    """What PyTorch's parameters have, by their names; zeros where nothing reached one."""
    return with_stacks({n: _gradient(p) for n, p in model.named_parameters() if p.requires_grad})


def name_input(place: int) -> str:
    """What the gradient of an input is called among those of the parameters."""
    return f"the model's input {place}" if place else "the model's input"


def gradients_of_inputs(inputs: Sequence[Tensor]) -> dict[str, NDArray]:
    """Of a model's inputs, by `name_input`'s names; zeros where nothing reached one."""
    return {name_input(i): _gradient(x) for i, x in enumerate(inputs)}


def _gradient(x: Tensor) -> NDArray:
    return np.zeros(tuple(x.shape)) if x.grad is None else torch_tensors.to_numpy(x.grad)


def gradient_rows(
    name: str,
    dtype: str,
    parameters: list[Parameter],
    found: dict[str, Any],
    gradients: dict[str, NDArray],
    more: Mapping[str, float],
) -> Iterator[Row]:
    """Of each parameter's gradient.

    Args:
        name: of the comparison.
        dtype: of both sides.
        parameters: whose.
        found: JAX's gradients, by the parameters' names.
        gradients: PyTorch's, see `gradients_of`.
        more: by the same names, what is allowed of each beside roundings.
    """
    largest = max((float(np.linalg.norm(np.asarray(g, np.float64))) for g in gradients.values()), default=0.0)
    for parameter in parameters:
        gradient = gradients.get(parameter.torch_name)
        if gradient is None:
            continue
        ours = found[parameter.name]
        moved, besides = parameter.move(gradient), more.get(parameter.torch_name, 0.0)
        row = row_of(name, dtype, parameter.name, "gradient", ours, moved, besides)
        if row.verdict == "mismatch" and _vanishes(largest, dtype, ours, gradient):
            fill(row, judge_value(0.0, row.bound))
        row.torch_name = parameter.torch_name
        yield row


def input_row(name: str, dtype: str, i: int, found: Any, theirs: NDArray, more: float) -> Row:
    """Of the gradient of an input: JAX's, and PyTorch's in its own layout; what is allowed beside roundings."""
    return row_of(name, dtype, f"input {i}", "gradient", found, as_input(theirs, found), more)


def as_input(theirs: NDArray, found: Any) -> NDArray:
    """PyTorch's gradient of an input, as JAX's lies."""
    layout = layouts.align(theirs, np.asarray(found, np.float64), None) or layouts.Layout()
    return layout.to_flax(theirs)
