"""Mistakes in convolutions and norms of a batch that are plain operations: padding, statistics of fewer values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Get, Node, run
from parity.causes.mistakes.attempts import Attempt, Problem

_DILATIONS = (1, 2, 3, 4, 8, 16)
_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "batch_norm", "cudnn_batch_norm")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("input")
        if start is None:
            continue
        if node.op in ("convolution", "_convolution"):
            yield from _paddings(region, place, start)
            yield from _dilations(region, place, start)
        elif node.op in _BATCH_NORMS and (node.args.get("training") or node.args.get("running_mean") is None):
            yield from _statistics(region, place, start)
        elif node.op == "native_group_norm":
            yield from _groups(region, place, start)


def _groups(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """Another number of groups: 1 as a norm of all channels has, as many as there are channels as one of each has."""
    node, channels = region.node(place), np.shape(region.value(start))[1]
    for count in (n for n in range(1, channels + 1) if channels % n == 0 and n != node.args["group"]):
        text = f"there are {count} groups, not {node.args['group']}"
        yield Attempt("groups", text, {place: lambda get, count=count: run(node, get, group=count)})


def _paddings(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """As many places before and behind together, but parted otherwise: causal, SAME, off by one."""
    node = region.node(place)
    own = [int(p) for p in node.args["padding"]]
    rank = np.ndim(region.value(start)) - 2
    if node.args.get("transposed"):
        yield from _cut_elsewhere(region, place, own)
        return
    own = own * rank if len(own) == 1 else own
    if any(int(stride) > 1 for stride in node.args["stride"]):
        yield from _same(region, place, start, own)
    for shifts in itertools.product(*(range(-min(p, 2), min(p, 2) + 1) for p in own)):
        ends = [shift in (p, -p) for shift, p in zip(shifts, own, strict=True)]
        if not any(shifts) or (max(own) > 2 and not all(ends) and max(map(abs, shifts)) > 1):
            continue
        yield _padded(node, place, start, own, shifts)
    for shifts in [(p,) * rank for p in set(own)] if max(own, default=0) > 2 else []:
        for sign in (1, -1):
            yield _padded(node, place, start, own, tuple(sign * s for s in shifts))


def _dilations(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """Another dilation, with as much more or less padding, whether the convolution pads or what stands before it."""
    node, x = region.node(place), region.value(start)
    own = [int(d) for d in node.args["dilation"]]
    if len(set(own)) != 1 or node.args.get("transposed") or max(node_weight(region, place).shape[2:]) == 1:
        return
    before = region.node(start)
    padded = before.argument("self") if before.op == "constant_pad_nd" else None
    for other in (d for d in _DILATIONS if d != own[0]):
        text = f"the kernel is dilated by {other}, not by {own[0]}"

        def dilated(get: Get, share: float = other / own[0], other: int = other) -> NDArray:
            pads = [share * p for p in node.args["padding"]]
            whole = get(start)
            if padded is not None:
                sides = [share * p for p in before.args["pad"]]
                pads, whole = [*pads, *sides], run(before, get, pad=[round(p) for p in sides])
            if any(p != round(p) for p in pads):
                raise ValueError("there are no halves of places")
            paddings = [round(p) for p in pads[: len(node.args["padding"])]]
            of = lambda p: whole if p == start else get(p)  # noqa: E731
            return run(node, of, padding=paddings, dilation=[other] * (x.ndim - 2))

        yield Attempt("dilation", text, {place: dilated})


def _padded(node: Node, place: int, start: int, own: list[int], shifts: tuple[int, ...]) -> Attempt:
    sides = [(p + s, p - s) for p, s in zip(own, shifts, strict=True)]
    causal = all(behind == 0 for _, behind in sides)
    words = "all before, as if it were causal" if causal else str(sides)
    text = f"padding (before, behind) is {words}, in PyTorch {[(p, p) for p in own]}"
    return Attempt("padding_side", text, {place: lambda get: _run_padded(node, start, sides, get)})


def _same(region: Region, place: int, start: int, own: list[int]) -> Iterator[Attempt]:
    """SAME, whose odd one goes behind, where PyTorch pads both sides alike and the stride is more than 1."""
    node, x, weight = region.node(place), region.value(start), node_weight(region, place)
    sides = []
    for n, k, s, d in zip(x.shape[2:], weight.shape[2:], node.args["stride"], node.args["dilation"], strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        sides.append((total // 2, total - total // 2))
    if sides != [(p, p) for p in own]:
        text = f"padding is SAME {sides}, in PyTorch {[(p, p) for p in own]}"
        yield Attempt("padding_same", text, {place: lambda get: _run_padded(node, start, sides, get)})


def node_weight(region: Region, place: int) -> NDArray:
    """The kernel of a convolution."""
    weight = region.node(place).argument("weight")
    return region.value(weight) if weight is not None else np.zeros((1, 1, 1))


def _run_padded(node: Node, start: int, sides: list[tuple[int, int]], get: Get) -> NDArray:
    whole = np.pad(get(start), [(0, 0), (0, 0), *sides])
    return run(node, lambda p: whole if p == start else get(p), padding=[0] * len(sides))


def _cut_elsewhere(region: Region, place: int, own: list[int]) -> Iterator[Attempt]:
    """Of a transposed convolution: the same size, cut from the whole result one place before or behind."""
    node = region.node(place)
    sizes = np.shape(region.value(place))[2:]
    own = own * len(sizes) if len(own) == 1 else own
    for begins in itertools.product(*(range(max(p - 2, 0), p + 3) for p in own)):
        if list(begins) == own:
            continue

        def moved(get: Get, begins: tuple[int, ...] = begins) -> NDArray:
            none = {"padding": [0] * len(own), "output_padding": [0] * len(own)}
            whole = run(node, get, **none)
            ends = [max(b + n - m, 0) for b, n, m in zip(begins, sizes, whole.shape[2:], strict=True)]
            whole = np.pad(whole, [(0, 0), (0, 0), *((0, end) for end in ends)])
            if node.argument("bias") is not None and any(ends):
                return np.full(1, np.nan)  # beyond the result would be the bias: nobody's mistake
            return whole[(..., *(slice(b, b + n) for b, n in zip(begins, sizes, strict=True)))]

        text = f"the transposed convolution's result begins at {list(begins)}, in PyTorch at {own} (padding)"
        yield Attempt("padding_side", text, {place: moved})


def _statistics(region: Region, place: int, start: int) -> Iterator[Attempt]:
    """A norm of the batch whose mean and variance are each example's, each place's, or with one value less."""
    node, x = region.node(place), region.value(start)
    several = not isinstance(region.value(place), np.ndarray)
    whole = (0, *range(2, x.ndim))
    ways = [
        ("batch_statistics", "of each example by itself", whole[1:]),
        ("batch_statistics", "of each place by itself, over the examples", whole[:1]),
        ("batch_statistics", "of all channels together", tuple(range(x.ndim))),
        ("batch_statistics", "of each example's channels, as in a norm of layers", tuple(range(1, x.ndim))),
    ]
    for key, words, axes in ways:
        if axes and axes != whole:
            text = f"mean and variance are taken {words}, in PyTorch over the whole batch"
            yield Attempt(key, text, {place: lambda get, axes=axes: _normed(node, get, axes, 0, several)})
    text = "the variance is divided by one less than the number of values, in PyTorch by the number"
    yield Attempt("variance", text, {place: lambda get: _normed(node, get, whole, 1, several)})


def _normed(node: Node, get: Get, axes: tuple[int, ...], less: int, several: bool) -> Any:
    start = node.argument("input")
    x = get(start) if start is not None else np.zeros(1)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True, ddof=less) + node.args["eps"])
    shape = [1, -1] + [1] * (x.ndim - 2)
    for name, change in (("weight", np.multiply), ("bias", np.add)):
        if (p := node.argument(name)) is not None:
            y = change(y, get(p).reshape(shape))
    return [y, np.zeros(0), np.zeros(0)] if several else y
