"""Naming what is wrong backward in a function whose outputs are right: PyTorch's run with one gradient changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from parity.candidate.function_rows import gradients_of, gradients_of_inputs, name_input
from parity.causes import diagnosis
from parity.causes.cause import alike, distinct, explains
from parity.causes.clock import Clock
from parity.causes.layer.parameters import Cause
from parity.causes.mistakes.attempts import FEWEST, MOST_WORK
from parity.reference import torch_backward, torch_tensors
from parity.reference.torch_gradient_edits import Change, Edit, Watched, edits
from parity.reports.rows import Row

_MOST_RUNS = 1500  # of PyTorch's model, with one change each
_LEAST = 1e-6  # a smaller factor is none
Gradients = dict[str, NDArray]


@dataclass(frozen=True)
class Backward:
    """Both sides' gradients of one function, and how PyTorch's come about.

    Attributes:
        model: PyTorch's.
        inputs: its own, in PyTorch's layout.
        kwargs: more of its arguments.
        dtype: of the lane.
        cotangents: of its outputs.
        judged: the rows of PyTorch's gradients, given by the names of parameters and `name_input`'s.
        laid: the same gradients as JAX's lie, in the order of the rows.
        ours: JAX's, in that order.
    """

    model: nn.Module
    inputs: tuple[NDArray, ...]
    kwargs: dict[str, Any]
    dtype: str
    cotangents: list[NDArray]
    judged: Callable[[Gradients], list[Row]]
    laid: Callable[[Gradients], list[NDArray]]
    ours: list[NDArray]

    def run(self, changes: dict[int, Change], notes: bool = False) -> tuple[Gradients, Watched]:
        """PyTorch's gradients with these changes in its calls, and what was noted of these, if `notes`."""
        tensors = torch_tensors.as_tensors(self.inputs, self.dtype)
        leaves = tuple(x.requires_grad_(x.is_floating_point()) for x in tensors)
        watched = Watched(changes)
        if notes:
            watched.names = {id(p): n for n, p in self.model.named_parameters()}
            watched.names |= {id(x): name_input(i) for i, x in enumerate(leaves) if x.requires_grad}
        self.model.zero_grad(set_to_none=True)
        with watched:
            outputs = torch_tensors.tensors_in(self.model(*leaves, **self.kwargs))
        torch_backward.pull(outputs, self.cotangents)
        return gradients_of(self.model) | gradients_of_inputs(leaves), watched

    def explained(self, edit: Edit, right: Gradients, before: float) -> Cause | None:
        """The cause that a change to PyTorch's gradients shows; None if JAX's don't come out."""
        try:
            made, _ = self.run(edit.changes)
        except (RuntimeError, TypeError, ValueError, IndexError):  # it can't be made there
            return None
        for gradients, text in ((made, edit.text), *self._in_part(edit, right, made)):
            rows = self.judged(gradients)
            after = max((row.largest for row in rows if not row.equal), default=_largest(rows))
            if all(row.equal for row in rows) and explains(before, after, before):
                return Cause(edit.key if text == edit.text else "gradient_scaled", "jax", text, before, after)
        return None

    def _in_part(self, edit: Edit, right: Gradients, made: Gradients) -> Iterator[tuple[Gradients, str]]:
        """With a gradient that isn't taken away but multiplied by a number, which is found from JAX's."""
        if not edit.linear:
            return
        whole, rest = self.laid(right), self.laid(made)
        share = np.concatenate([(a - b).ravel() for a, b in zip(whole, rest, strict=True)])
        wanted = np.concatenate([(a - b).ravel() for a, b in zip(self.ours, rest, strict=True)])
        size = float(np.vdot(share, share))
        factor = float(np.vdot(share, wanted)) / size if size > 0 else 0.0
        if distinct(share) >= FEWEST and not alike(factor, 1.0) and abs(factor) > _LEAST:
            text = f"wrong gradient: {edit.text.replace('the gradient is stopped at', 'that of')} is {factor:.6g} times"
            yield {n: made[n] + factor * (right[n] - made[n]) for n in right}, f"{text} PyTorch's"


def _largest(rows: list[Row]) -> float:
    return max((row.largest for row in rows), default=0.0)


def explain(backward: Backward, rows: list[Row]) -> list[Row]:
    """The rows of all gradients in the order in which these come about, a cause attached to the first that differs.

    Args:
        backward: how PyTorch's come about.
        rows: some of which differ; the outputs don't.
    """
    right, watched = backward.run({}, notes=True)

    def place(row: Row) -> int:
        """The later a parameter is used, the earlier its gradient comes about."""
        return -watched.used.get(row.torch_name, -1)

    rows = sorted(rows, key=place)  # stable: inputs stay last
    first, *others = [row for row in rows if row.diverges]
    names = watched.used
    wrong = frozenset(row.torch_name for row in (first, *others) if row.torch_name in names)
    before = max(row.largest for row in (first, *others))
    runs = max(min(_MOST_RUNS, MOST_WORK // max(watched.work, 1)), 1)
    clock, cause = Clock(), None
    with clock:
        for edit in itertools.islice(edits(watched.calls, wrong), runs):
            cause = backward.explained(edit, right, before)
            if cause is not None or clock.over:
                break
    if cause is None and clock.over:
        first.detail = clock.told
    if cause is not None:
        diagnosis.attach(first, [cause])
        for row in others:
            row.echo = first.name
    return rows
