"""Mistakes in what is joined: in another order, along another axis, interleaved; also of parts that are joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from parity.causes.mistakes.attempts import Attempt, Problem, value


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Arrays joined in another order, or along another axis, or interleaved."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        if node.op not in ("cat", "stack"):
            continue
        parts = [region.value(p) for p in node.parents]
        dim, join = node.args.get("dim", 0), np.concatenate if node.op == "cat" else np.stack
        names = [problem.words(p) for p in node.parents]
        if 2 <= len(parts) <= 5:
            for order in _orders(len(parts)):
                text = f"{node.op} joins its parts in the order {list(order)}"
                if len(set(names)) == len(names):
                    text = f"{node.op} joins {', '.join(names[i] for i in order)}; PyTorch {', '.join(names)}"
                yield Attempt("concatenation_order", text, {place: value(join([parts[i] for i in order], dim))})
        yield from _nested(problem, place)
        if len(parts) > 5:
            text = f"{node.op} joins its parts in reverse order"
            yield Attempt("concatenation_order", text, {place: value(join(parts[::-1], dim))})
        if len({p.shape for p in parts}) == 1:
            whole = region.value(place)
            for axis in range(parts[0].ndim):
                made = np.stack(parts, axis + 1)
                text = f"{node.op} interleaves its parts along axis {axis}"
                if made.size == whole.size:
                    yield Attempt("concatenation_interleaved", text, {place: value(made.reshape(whole.shape))})


def _nested(problem: Problem, place: int) -> Iterator[Attempt]:
    """Of parts that are joined themselves, along the same axis: all of them in another order."""
    region = problem.region
    dim = region.node(place).args.get("dim", 0)
    parts: list[int] = []
    for p in region.node(place).parents:
        same = region.node(p).op == "cat" and p not in region.cut and region.node(p).args.get("dim", 0) == dim
        parts += region.node(p).parents if same and region.node(place).op == "cat" else [p]
    if not len(region.node(place).parents) < len(parts) <= 5:
        return
    names = [problem.words(p) for p in parts]
    for order in _orders(len(parts)):
        text = f"cat joins {', '.join(names[i] for i in order)}; PyTorch {', '.join(names)}"
        made = np.concatenate([region.value(parts[i]) for i in order], dim)
        yield Attempt("concatenation_order", text, {place: value(made)})


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    return (o for o in itertools.permutations(range(count)) if o != tuple(range(count)))
