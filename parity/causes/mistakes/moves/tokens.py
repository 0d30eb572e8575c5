"""Mistakes in which places are taken: class tokens, positions, pooling, the first, the last or all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import GIVEN
from parity.causes.graph.nodes import Get, run
from parity.causes.mistakes.attempts import Attempt, Problem, each_and_all, value

_POOLS = {"mean": np.mean, "sum": np.sum, "amax": np.max, "max": np.max}


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each choice of places."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        start = node.argument("self")
        if start is None or not isinstance(region.value(start), np.ndarray):
            continue
        if node.op == "select":
            yield from _selected(problem, place, start)
        elif node.op in _POOLS and node.args.get("dim") is not None:
            yield from _pooled(problem, place, start)
        elif node.op in ("var", "std", "var_mean", "std_mean", "prod", "logsumexp"):
            yield from _reduced(region, place, start)
    yield from each_and_all(_slices(problem))
    yield from _joined(problem)
    yield from _extremes(region)
    if problem.observed.shape != problem.right.shape:
        yield from _taken_early(problem)


def _taken_early(problem: Problem) -> Iterator[Attempt]:
    """One value for all places where PyTorch hands on each, as of a mean that comes before a norm, not behind it."""
    x, sink = problem.right, problem.region.sink
    if x.ndim < 3 or not np.issubdtype(x.dtype, np.floating):
        return
    words = f"of {problem.words(sink)} {list(x.shape)} is handed on, in PyTorch all of it: an order exchanged?"
    for axis in range(1, x.ndim):
        for key, text, made in _reductions(x, axis):
            yield Attempt(key, f"{text} along axis {axis} {words}", {sink: value(made)})
    for count in range(2, x.ndim - 1):
        for axes in itertools.combinations(range(1, x.ndim), count):
            yield Attempt("pool_mean", f"the mean over axes {list(axes)} {words}", {sink: value(x.mean(axes))})
            yield Attempt("pool_max", f"the largest over axes {list(axes)} {words}", {sink: value(x.max(axes))})


def _reductions(x: NDArray, axis: int) -> Iterator[tuple[str, str, NDArray]]:
    """One value for a whole axis of places."""
    yield "token_first", "the first place", np.take(x, 0, axis)
    yield "token_last", "the last place", np.take(x, -1, axis)
    if x.shape[axis] > 1:
        yield "token_second", "the second place", np.take(x, 1, axis)
        rest = np.take(x, range(1, x.shape[axis]), axis)
        yield "pool_without_first", "the mean of all but the first place", rest.mean(axis)
        most = np.take(x, range(x.shape[axis] - 1), axis)
        yield "pool_without_last", "the mean of all but the last place", most.mean(axis)
        yield "pool_max", "the largest of all but the first place", rest.max(axis)
    yield "pool_mean", "the mean of all places", x.mean(axis)
    yield "pool_max", "the largest of all places", x.max(axis)
    yield "pool_sum", "the sum of all places", x.sum(axis)


def _selected(problem: Problem, place: int, start: int) -> Iterator[Attempt]:
    region = problem.region
    node, x = region.node(place), region.value(start)
    axis = int(node.args["dim"]) % x.ndim
    if not np.issubdtype(x.dtype, np.floating):
        return
    own = f"place {node.args['index']} of axis {axis} of {problem.words(start)}"
    for key, text, made in _reductions(x, axis):
        yield Attempt(key, f"{text} is taken, not {own}", {place: value(made)}, region.node(start).op == GIVEN)
    for other in (a for a in range(x.ndim) if a != axis):
        made = np.take(x, node.args["index"], other)
        if made.size == region.value(place).size:
            yield Attempt("token_axis", f"axis {other} is indexed, not {axis}", {place: value(made)})


def _pooled(problem: Problem, place: int, start: int) -> Iterator[Attempt]:
    """Another way of pooling, over other axes, of more places."""
    region = problem.region
    node, x = region.node(place), region.value(start)
    dims = node.args["dim"]
    dims = tuple(int(d) % x.ndim for d in (dims if isinstance(dims, list) else [dims]))
    keep = bool(node.args.get("keepdim", False))
    y = region.value(place)
    if not isinstance(y, np.ndarray):
        return
    for name, function in _POOLS.items():
        made = function(x, axis=dims, keepdims=keep)
        text = f"places are pooled by {name}, not by {node.op}"
        yield Attempt(f"pool_{name.removeprefix('a')}", text, {place: value(made)})
    own = _POOLS[node.op]
    if 0 not in dims and y.ndim and len(y) > 1:
        text = f"{node.op} is taken over all examples, too, not of each by itself"
        yield Attempt("pool_axis", text, {place: value(np.broadcast_to(own(y, axis=0, keepdims=True), y.shape))})
    text = f"{node.op} over axes {list(dims)} of {list(x.shape)} is left out: all places are handed on"
    yield Attempt("pool_missing", text, {place: lambda get: get(start)})
    for axis in range(x.ndim):
        rest = tuple(a for a in range(x.ndim) if a != axis)
        for axes in dict.fromkeys(((axis,), rest, dims[:1], dims[1:], tuple(sorted({*dims, axis})))):
            if axes and axes != dims:
                text = f"axes {list(axes)} are pooled, not {list(dims)}"
                yield Attempt("pool_axis", text, {place: value(own(x, axis=axes, keepdims=keep))})
    for i, axis in itertools.product(range(len(dims)), range(x.ndim)) if len(dims) > 1 else ():
        axes = tuple(sorted({*dims[:i], axis, *dims[i + 1 :]}))
        if len(axes) == len(dims) and axes != tuple(sorted(dims)):
            text = f"axes {list(axes)} are pooled, not {list(dims)}"
            yield Attempt("pool_axis", text, {place: value(own(x, axis=axes, keepdims=keep))})
    if len(dims) > 1 and not keep:  # as of a map whose channels lie last: of the examples, too
        for axes in itertools.combinations(range(x.ndim), len(dims)):
            made = own(x, axis=axes)
            if axes != tuple(sorted(dims)) and made.ndim == 2 and 1 not in axes:
                text = f"axes {list(axes)} are pooled, not {list(dims)}"
                yield Attempt("pool_axis", text, {place: value(np.moveaxis(made, 0 if 0 in axes else 1, -1))})
    yield from _pooled_in_part(region, place, own, x, dims)
    if len(dims) == 1:
        for key, text, made in _reductions(x, dims[0]):
            made = np.expand_dims(made, dims[0]) if keep else made
            yield Attempt(key, f"{text} is taken, not {node.op}", {place: value(made)})
    before = region.node(start)
    source = before.argument("self")
    if before.op == "slice" and source is not None:
        whole = region.value(source)
        text = f"{node.op} is taken of all of {problem.words(source)}, also of what PyTorch leaves out (a class token?)"
        yield Attempt("pool_all", text, {place: value(own(whole, axis=dims, keepdims=keep))})
        axis = int(before.args.get("dim", 0)) % whole.ndim
        first = np.take(whole, range(whole.shape[axis] - x.shape[axis]), axis)
        text = f"{node.op} is taken of the part that PyTorch leaves out"
        yield Attempt("pool_rest", text, {place: value(own(first, axis=dims, keepdims=keep))})


def _pooled_in_part(region: Region, place: int, own: Any, x: NDArray, dims: tuple[int, ...]) -> Iterator[Attempt]:
    """Over some of the axes; of the others one place is taken."""
    for axis in dims if len(dims) > 1 else ():
        rest = [d for d in dims if d != axis]
        for text, index in (("first", 0), ("last", -1)):
            made = own(np.take(x, [index], axis), axis=(axis, *rest)).reshape(region.value(place).shape)
            text = f"axes {rest} alone are pooled, not {list(dims)}: of axis {axis} the {text} place is taken"
            yield Attempt("pool_axis", text, {place: value(made)})


def _reduced(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """Of a variance, say: along another axis, which stays or not; divided by another number of values."""
    node, x = region.node(place), region.value(start)
    yield from _corrected(region, place)
    dims = node.args["dim"]
    if dims is None:
        return
    dims = [int(d) % x.ndim for d in (dims if isinstance(dims, list) else [dims])]
    for axis in (a for a in range(x.ndim) if [a] != dims):
        for keep in (True, False):

            def change(get: Get, axis: int = axis, keep: bool = keep) -> NDArray:
                return run(node, get, dim=[axis], keepdim=keep)

            yield Attempt("pool_axis", f"{node.op} is taken along axis {axis}, not {dims}", {place: change})


def _corrected(region: Region, place: int) -> Iterator[Attempt]:
    """The variance of a sample, divided by one less than the number of values, or that of all, divided by it."""
    node = region.node(place)
    if node.op in ("var", "std", "var_mean", "std_mean"):
        own = node.args.get("correction")
        other = 0 if own is None or own else 1
        words = ("the number of values", "one less than the number of values")[:: 1 if other == 0 else -1]
        text = f"the variance is divided by {words[0]}, in PyTorch by {words[1]}"
        yield Attempt("variance", text, {place: lambda get: run(node, get, correction=other)})


def _slices(problem: Problem) -> Iterator[Attempt]:
    """A part of an array that begins somewhere else: positions off by one, a class token that is kept or cut off."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        start = node.argument("self")
        if start is None or node.op not in ("slice", "index_select", "embedding", "narrow"):
            continue
        x, y = region.value(start), region.value(place)
        if node.op != "slice" or not isinstance(x, np.ndarray) or x.shape == y.shape:
            continue
        axis = int(node.args.get("dim", 0)) % x.ndim
        size, step = y.shape[axis], node.args.get("step") or 1
        begin = node.args.get("start") or 0
        begin = begin + x.shape[axis] if begin < 0 else begin
        names, spare = problem.words(start), x.shape[axis] - (size - 1) * step - 1
        for other in dict.fromkeys(
            (
                begin + 1,
                begin - 1,
                begin + 2,
                begin - 2,
                0,
                spare,
                spare // 2,
                -(-spare // 2),
            )  # the middle one, as SAME
        ):
            if other != begin and other >= 0 and other + (size - 1) * step < x.shape[axis]:
                made = np.take(x, range(other, other + size * step, step), axis)
                text = f"places of {names} are taken from {other} on, not from {begin}"
                yield Attempt("slice_offset", text, {place: value(made)})
        if other_rows := _wrapped(begin, size, x.shape[axis]):
            for text, rows in other_rows:
                yield Attempt("slice_offset", f"places of {names} are {text}", {place: value(np.take(x, rows, axis))})


def _wrapped(begin: int, size: int, whole: int) -> list[tuple[str, NDArray]]:
    rows = np.arange(begin, begin + size)
    return [
        ("off by one, the last one standing for what is missing", np.minimum(rows + 1, whole - 1)),
        ("off by one, the first one standing for what is missing", np.maximum(rows - 1, 0)),
        ("taken from the end backwards", rows[::-1]),
    ]


def _joined(problem: Problem) -> Iterator[Attempt]:
    """Something added before a token joins the others, or only behind it."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        if node.op != "add":
            continue
        one, two = node.argument("self"), node.argument("other")
        if one is None or two is None:
            continue
        for data, table in ((one, two), (two, one)):
            if region.of_data(table) or not region.of_data(data):
                continue
            x, t = region.value(data), region.value(table)
            if x.ndim < 2 or t.ndim < 2 or t.shape[-2:] != x.shape[-2:]:
                continue
            words = problem.words(table)
            part = np.broadcast_to(t, x.shape).copy()
            for text, rows in (("the first place", 0), ("the last place", -1)):
                made = part.copy()
                made[..., rows, :] = 0
                yield Attempt("positions_part", f"{words} isn't added to {text}", {place: value(x + made)})
            moved = np.zeros_like(part)
            moved[..., 1:, :] = part[..., :-1, :]
            text = f"{words} is added from the second place on, each row one place too late"
            yield Attempt("positions_part", text, {place: value(x + moved)})
            moved[..., :-1, :] = part[..., 1:, :]
            moved[..., -1, :] = 0
            yield Attempt("positions_part", f"{words} is added one place too early", {place: value(x + moved)})
            for by in (1, -1):
                made = x + np.roll(part, by, -2)
                yield Attempt("positions_rolled", f"{words} is rolled by {by} place", {place: value(made)})
            side = round(t.shape[-2] ** 0.5)
            if side * side == t.shape[-2]:
                grid = part.reshape(*part.shape[:-2], side, side, -1).swapaxes(-2, -3).reshape(part.shape)
                text = f"{words} is transposed: rows and columns of its places are exchanged"
                yield Attempt("positions_transposed", text, {place: value(x + grid)})


def _extremes(region: Region) -> Iterator[Attempt]:
    """A place that is chosen for each example, as the last one that isn't padding: another one is taken."""
    for place in region.operations:
        node = region.node(place)
        if node.op != "index" or not region.of_data(place):
            continue
        start = node.argument("self")
        if start is None:
            continue
        x, y = region.value(start), region.value(place)
        if x.ndim == 3 and y.ndim == 2 and np.issubdtype(x.dtype, np.floating):
            for key, text, made in _reductions(x, 1):
                yield Attempt(key, f"{text} is taken, not the one that was chosen", {place: value(made)})
