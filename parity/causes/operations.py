"""Mistakes in single operations: resizing, padding, shuffles, running sums, norms, functions misplaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem, value
from parity.causes.functions import CURVED, WORDS
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, run
from parity.kinds import resampling


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each operation, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("self")
        made = _OF.get(node.op)
        if made is not None and start is not None and region.of_data(place):
            for key, text, result in made(node.args, region.value(start)):
                yield Attempt(key, text, {place: value(result)})
        if node.op in CURVED and start is not None:
            yield from _misplaced(problem, place, start)
    yield from _indices(problem)


Mistakes = Iterator[tuple[str, str, NDArray]]


def _resizing(args: Any, x: NDArray) -> Mistakes:
    if args["output_size"] is not None and x.ndim == 4:
        yield from resampling.in_other_ways(x, tuple(args["output_size"]))
        times = [whole // part for whole, part in zip(args["output_size"], x.shape[2:], strict=True)]
        yield "repeat_order", "the map is repeated as a whole (tile), not each pixel", np.tile(x, (1, 1, *times))


def _padding(args: Any, x: NDArray) -> Mistakes:
    pad = args.get("pad", args.get("padding"))
    sides = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    if any(min(side) < 0 for side in sides):
        return
    for mode, words in (
        ("constant", "zeros"),
        ("reflect", "a mirror image"),
        ("edge", "the edge's values"),
        ("symmetric", "a mirror image with the edge"),
        ("wrap", "the other end"),
    ):
        yield "pad_mode", f"beyond the edge stands {words}", np.pad(x, sides, mode=mode)  # type: ignore[call-overload]
        turned = [(after, before) for before, after in sides]
        if turned != sides:
            text = f"before and after are exchanged in padding, with {words}"
            yield "pad_sides", text, np.pad(x, turned, mode=mode)  # type: ignore[call-overload]
    if sides[-1] != sides[-2]:
        yield "pad_axes", "rows and columns are exchanged in padding", np.pad(x, [*sides[:-2], sides[-1], sides[-2]])


def _shuffled(args: Any, x: NDArray) -> Mistakes:
    r = args["upscale_factor"]
    *lead, channels, h, w = x.shape
    rest = channels // (r * r)
    orders = {
        "the blocks' rows and columns are exchanged": ((rest, r, r), (0, 3, 2, 4, 1)),
        "channels lie behind the places in a block": ((r, r, rest), (2, 3, 0, 4, 1)),
        "channels lie behind the places in a block, transposed": ((r, r, rest), (2, 3, 1, 4, 0)),
    }
    for text, (parts, order) in orders.items():
        split = x.reshape(-1, *parts, h, w)
        made = np.transpose(split, (0, *(i + 1 for i in order))).reshape(*lead, rest, h * r, w * r)
        yield "shuffle_order", text, made


def _unshuffled(args: Any, x: NDArray) -> Mistakes:
    r = args["downscale_factor"]
    *lead, channels, h, w = x.shape
    split = x.reshape(-1, channels, h // r, r, w // r, r)
    for text, order in {
        "the blocks' rows and columns are exchanged": (0, 1, 5, 3, 2, 4),
        "channels lie behind the places in a block": (0, 3, 5, 1, 2, 4),
        "channels lie behind the places in a block, transposed": (0, 5, 3, 1, 2, 4),
    }.items():
        yield "shuffle_order", text, np.transpose(split, order).reshape(*lead, -1, h // r, w // r)


def _gated(args: Any, x: NDArray) -> Mistakes:
    axis = args.get("dim", -1)
    one, two = np.split(x, 2, axis)
    yield "glu_halves", "the halves of a gate are exchanged", two / (1 + np.exp(-one))
    yield "glu_function", "the gate has no sigmoid", one * two
    yield "glu_function", "the gate has a SiLU, not a sigmoid", one * two / (1 + np.exp(-two))
    even, odd = (np.take(x, range(i, x.shape[axis], 2), axis) for i in (0, 1))
    yield "glu_halves", "every second value is the gate's, not the second half", even / (1 + np.exp(-odd))


def _running(args: Any, x: NDArray) -> Mistakes:
    axis = int(args["dim"]) % x.ndim
    whole = np.cumsum(x, axis)
    yield "cumsum_exclusive", "the running sum doesn't hold its own place", whole - x
    yield "cumsum_reverse", "the running sum runs backwards", np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    for other in (a for a in range(x.ndim) if a != axis):
        yield "cumsum_axis", f"the running sum runs along axis {other}, not {axis}", np.cumsum(x, other)


def _norms(args: Any, x: NDArray) -> Mistakes:
    keep = bool(args.get("keepdim", False))
    own = args.get("dim")
    for axis in range(x.ndim):
        if own is None or axis not in [d % x.ndim for d in (own if isinstance(own, list) else [own])]:
            made = np.sqrt(np.sum(x * x, axis=axis, keepdims=keep))
            yield "norm_axis", f"the norm is taken along axis {axis} of {list(x.shape)}", made
    dims = None if own is None else tuple(own) if isinstance(own, list) else own
    yield "norm_kind", "sizes are added up, not their squares", np.sum(np.abs(x), axis=dims, keepdims=keep)
    yield "norm_kind", "the root of the squares isn't taken", np.sum(x * x, axis=dims, keepdims=keep)
    yield "norm_kind", "squares are averaged, not added up", np.sqrt(np.mean(x * x, axis=dims, keepdims=keep))


_OF: dict[str, Callable[[Any, NDArray], Mistakes]] = {
    "upsample_bilinear2d": _resizing,
    "upsample_bicubic2d": _resizing,
    "upsample_nearest2d": _resizing,
    "constant_pad_nd": _padding,
    "reflection_pad1d": _padding,
    "reflection_pad2d": _padding,
    "replication_pad1d": _padding,
    "replication_pad2d": _padding,
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    "glu": _gated,
    "cumsum": _running,
    "linalg_vector_norm": _norms,
    "norm": _norms,
}


def _misplaced(problem: Problem, place: int, start: int) -> Iterator[Attempt]:
    """A function of a sum or product applied to one part only, or one of a part applied to all."""
    region = problem.region
    words = WORDS.get(region.node(place).op, region.node(place).op)
    inner = region.node(start)

    def applied(x: NDArray) -> NDArray:
        return run(region.node(place), lambda p: x if p == start else region.value(p))

    if inner.op in ("add", "mul", "sub"):
        one, two = inner.argument("self"), inner.argument("other")
        if one is not None and two is not None:
            for first, second in ((one, two), (two, one)):
                parts = {first: applied(region.value(first)), second: region.value(second)}
                made = run(inner, parts.__getitem__)
                text = f"{words} is applied to {problem.words(first)} alone, not to {inner.op} of it"
                yield Attempt("function_moved", text, {place: value(made)})
    for user in region.users(place):
        node = region.node(user)
        if node.op in ("add", "mul", "sub"):
            yield from _before(region, place, start, user, words, applied)


def _before(
    region: Region, place: int, start: int, user: int, words: str, applied: Callable[[NDArray], NDArray]
) -> Iterator[Attempt]:
    """The function of one operand applied to the other one, or to the whole."""
    node = region.node(user)
    whole = run(node, lambda p: region.value(start) if p == place else region.value(p))
    text = f"{words} is applied to the result of {node.op}, not to one part of it"
    yield Attempt("function_moved", text, {user: value(applied(whole))})
    others = [p for p in node.parents if p != place]
    if len(others) == 1:

        def exchanged(get: Get) -> NDArray:
            return run(node, lambda p: region.value(start) if p == place else applied(region.value(p)))

        text = f"{words} is applied to the other part of {node.op}"
        yield Attempt("function_moved", text, {user: exchanged})


def _indices(problem: Problem) -> Iterator[Attempt]:
    """Indices larger or smaller by one; places that begin again, as if several texts weren't joined."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        if node.op not in ("index", "index_select", "gather", "embedding"):
            continue
        for index in node.parents:
            values = region.value(index)
            if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.integer):
                for by in (1, -1):
                    text = f"indices are {'larger' if by > 0 else 'smaller'} by 1"
                    yield Attempt("index_offset", text, {index: value(values + by)})
                for length in _lengths(values):
                    text = f"places begin again after {length}, in PyTorch they count on to {values.size}"
                    again = values.min() + (values - values.min()) % length
                    yield Attempt("index_restarted", text, {index: value(again)})


def _lengths(values: np.ndarray) -> Iterator[int]:
    """Of counted places, as arange gives them, the lengths of the parts that they may be of."""
    count = values.size
    if count > 1 and count == max(values.shape, default=0) and (np.diff(values.ravel()) == 1).all():
        yield from (count // parts for parts in range(2, count // 2 + 1) if count % parts == 0)
