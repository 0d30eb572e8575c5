"""The error bounds of convolutions, forward and backward, to first order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding_rules import rule


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "_trilinear")
def _convolved(op: Operation) -> tuple[Any, int]:
    """Sums of products, counted by running the operation on ones; linear in each argument."""
    floating = [i for i, a in enumerate(op.args) if isinstance(a, Tensor) and a.is_floating_point()]

    def run(values: dict[int, Tensor]) -> Tensor:
        return op.func(*(values.get(i, a) for i, a in enumerate(op.args)), **op.kwargs)

    absolute = {i: op.value(i).abs() for i in floating}
    terms = int(run({i: torch.ones_like(absolute[i]) for i in floating}).max()) + (op.name == "_trilinear")
    error = terms * op.unit * run(absolute)
    bias = floating[2:] if op.name != "_trilinear" else []  # the bias is added, not multiplied
    alone = {i: torch.zeros_like(absolute[i]) for i in bias}
    for i, bound in op.errors.items():
        if i in bias:
            without = {j: torch.zeros_like(absolute[j]) for j in floating[:1]}
            error = error + run({**absolute, **without, i: bound})
        else:
            error = error + run({**absolute, **alone, i: bound})  # type: ignore[dict-item]
    return error, terms


@rule("convolution_backward")
def _convolved_backward(op: Operation) -> tuple[Any, int]:
    """Three sums of products: of the gradient with the kernel, with the input, and alone."""
    g, x, w = (op.value(i).abs() for i in range(3))

    def run(*values: Tensor) -> list[Tensor | None]:
        return list(op.func(*values, *op.args[3:], **op.kwargs))

    counts = run(torch.ones_like(g), torch.ones_like(x), torch.ones_like(w))
    terms = [0 if count is None else int(count.max()) for count in counts]
    errors = [None if m is None else n * op.unit * m for n, m in zip(terms, run(g, x, w), strict=True)]
    zeros = torch.zeros_like(x), torch.zeros_like(w)
    ways = ([(0, op.error(0), x, w)] if 0 in op.errors else []) + (
        [(1, g, op.error(1), zeros[1])] if 1 in op.errors else []
    )
    ways += [(2, g, zeros[0], op.error(2))] if 2 in op.errors else []
    for place, *values in ways:
        for k, more in enumerate(run(*values)):
            before = errors[k]
            if before is not None and more is not None and (place == 0 or k < 2):
                errors[k] = before + more
    return errors, max(terms)
