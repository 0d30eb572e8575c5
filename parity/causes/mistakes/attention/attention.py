"""Mistakes in attention: its scale, its softmax, its biases, its cap, and queries, keys and values exchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Get
from parity.causes.mistakes.attempts import Attempt, Problem, measured, value
from parity.causes.mistakes.attention.caps import USUAL, found_cap
from parity.causes.numpy_operations.operations import softmax

_SOFTMAX = ("_softmax", "softmax", "_safe_softmax")
PRODUCTS = ("matmul", "bmm", "baddbmm", "einsum", "mm")
_BETWEEN = MOVES | {"mul", "div", "add", "sub", "masked_fill", "where", "tanh", "clamp", "clamp_min", "clamp_max"}
_BETWEEN |= {"_attention_scale", "_causal", "_masked", "nan_to_num", "maximum", "minimum"}
MASKED = -5000.0  # a score below this one is out: its exponential is 0 beside any other


@dataclass(frozen=True)
class Attention:
    """One softmax of products, and what becomes of its shares.

    Attributes:
        scores: the node of the products of queries and keys.
        chain: the nodes from there to the softmax, the last one being what it is taken of.
        shares: the softmax.
        out: the product of shares and values; None if that isn't found.
        query_axis: of the scores before the softmax, counted from the end; likewise key_axis.
        key_axis: see `query_axis`.
    """

    scores: int
    chain: tuple[int, ...]
    shares: int
    out: int | None
    query_axis: int
    key_axis: int

    @property
    def logits(self) -> int:
        """What the softmax is taken of."""
        return self.chain[-1] if self.chain else self.scores


def find(region: Region) -> Iterator[Attention]:
    """Every attention in a region."""
    for place in region.operations:
        node = region.node(place)
        start = node.argument("self")
        if node.op not in _SOFTMAX or start is None:
            continue
        path = _path(region, start)
        if path is None:
            continue
        scores, *chain = path
        ndim = region.value(start).ndim
        key = int(node.args["dim"]) % ndim - ndim
        query = _query_axis(region, scores, chain, key)
        yield Attention(scores, tuple(chain), place, _used(region, place), query, key)


def _path(region: Region, start: int) -> list[int] | None:
    """The way from the nearest product to a node, both included."""
    waiting, seen = [[start]], {start}
    while waiting:
        path = waiting.pop(0)
        node = region.node(path[0])
        if node.op in PRODUCTS:
            return path
        if node.op in _BETWEEN:
            new = [p for p in dict.fromkeys(node.parents) if region.of_data(p) and p not in seen]
            seen.update(new)
            waiting += [[parent, *path] for parent in new]
    return None


def _query_axis(region: Region, scores: int, chain: list[int], key: int) -> int:
    node = region.node(scores)
    moved = any(region.node(place).op in ("permute", "transpose", "movedim") for place in chain)
    if node.op == "einsum" and not moved:
        left, _, result = node.args["equation"].replace(" ", "").partition("->")
        first, second = left.split(",")
        single = [c for c in result if (c in first) != (c in second) and c != result[key]]
        if single:
            return result.index(single[-1]) - len(result)
    return -1 if key != -1 else -2


def _used(region: Region, place: int) -> int | None:
    """The product that takes a node's values, moved or not."""
    for user in region.users(place):
        op = region.node(user).op
        if op in PRODUCTS:
            return user
        if (op in MOVES or op == "native_dropout") and (found := _used(region, user)) is not None:
            return found
    return None


def width(region: Region, a: Attention) -> int:
    """Terms of one score: how many features a head has."""
    node = region.node(a.scores)
    if node.op == "einsum":
        left, _, result = node.args["equation"].replace(" ", "").partition("->")
        operands = left.split(",")
        first = region.value(node.parents[0])
        summed = [i for i, c in enumerate(operands[0]) if c in operands[-1] and c not in result]
        return math.prod(first.shape[i] for i in summed)
    return region.value(node.parents[1 if node.op == "baddbmm" else 0]).shape[-1]


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each attention."""
    region = problem.region
    for a in find(region):
        yield from _scales(problem, a)
        yield from _exchanged(region, a)
        yield from _axes(region, a)
        for place in a.chain:
            yield from _biases(problem, a, place)
        yield from _caps(problem, a)


def _scales(problem: Problem, a: Attention) -> Iterator[Attempt]:
    region = problem.region
    d, logits = width(region, a), region.value(a.logits)
    heads = logits.shape[1] if logits.ndim == 4 else 1
    scores = region.value(a.scores)
    root = math.sqrt(d)
    known = [
        (root, f"the scores aren't divided by the root of the head's width, {d}"),
        (1 / root, f"the scores are divided by the root of the head's width, {d}, once more"),
        (1 / math.sqrt(heads), f"the scores are divided by the root of the whole width, {d * heads}, not of a head's"),
        (float(d), f"the scores aren't divided by the head's width, {d}"),
        (math.sqrt(heads), f"the scores are divided by the root of a head's width, {d}, not of the whole"),
        (1 / d, f"the scores are divided by the head's width, {d}, once more"),
        (d**0.25, f"the scores are divided by the fourth root of the head's width, {d}"),
        (1 / math.sqrt(d * heads), f"the scores are divided by the root of the whole width, {d * heads}, once more"),
    ]
    for i, (factor, text) in enumerate(known):
        if factor != 1 and all(abs(factor - other) > 1e-9 for other, _ in known[:i]):
            alike = [more for other, more in known[i + 1 :] if abs(factor - other) < 1e-9]
            yield Attempt("attention_scale", "; or ".join([text, *alike]), {a.scores: value(factor * scores)})
    if (factor := measured(problem, lambda c: {a.scores: value(c * scores)}, 1.0, 1.0)) is not None:
        text = f"the scores are {factor:.6g} times PyTorch's"
        yield Attempt("attention_scale", text, {a.scores: value(factor * scores)})


def _exchanged(region: Region, a: Attention) -> Iterator[Attempt]:
    scores, shares = region.value(a.scores), region.value(a.shares)
    before = region.value(a.logits)
    axes = (a.query_axis, a.key_axis)
    if scores.ndim >= 2 and scores.shape[a.query_axis] == scores.shape[a.key_axis] and before.ndim == scores.ndim:
        text = "queries and keys are exchanged (scores are transposed)"
        yield Attempt("q_k_exchanged", text, {a.scores: value(np.swapaxes(scores, *axes))})
    if shares.shape[a.query_axis] == shares.shape[a.key_axis]:
        text = "the shares are transposed before they meet the values"
        yield Attempt("shares_transposed", text, {a.shares: value(np.swapaxes(shares, *axes))})


def _axes(region: Region, a: Attention) -> Iterator[Attempt]:
    logits = region.value(a.logits)
    names = {a.query_axis: "queries", a.key_axis: "keys"}
    others = [axis for axis in range(-logits.ndim, 0) if axis not in names]
    names |= {axis: "heads" if axis == others[-1] and len(others) > 1 else "examples" for axis in others}
    for axis in (axis for axis in (a.query_axis, *reversed(others)) if logits.shape[axis] > 1):
        text = f"the softmax runs over {names[axis]}, not over keys"
        yield Attempt("softmax_axis", text, {a.shares: lambda get, axis=axis: _softmax(get(a.logits), axis)})
    yield Attempt("softmax_missing", "there is no softmax", {a.shares: lambda get: get(a.logits)})
    twice = {a.shares: lambda get: _softmax(_softmax(get(a.logits), a.key_axis), a.key_axis)}
    yield Attempt("softmax_twice", "the softmax is taken twice", twice)
    sigmoid = {a.shares: lambda get: 1 / (1 + np.exp(-get(a.logits)))}
    yield Attempt("softmax_sigmoid", "a sigmoid stands for the softmax", sigmoid)
    powers = {a.shares: lambda get: np.exp(get(a.logits))}
    yield Attempt(
        "softmax_unnormalised", "exponentials stand for the softmax: they aren't divided by their sum", powers
    )


def _softmax(x: NDArray, axis: int) -> NDArray:
    return softmax({"self": x, "dim": axis})


def way(region: Region, a: Attention, place: int) -> tuple[int, int] | None:
    """Of a node that adds something to the scores: the operand that they come by, and the other one."""
    earlier = {a.scores, *a.chain[: a.chain.index(place)]}
    node = region.node(place)
    if node.op not in ("add", "_masked", "sub"):
        return None
    first, second = node.argument("self"), node.argument("mask" if node.op == "_masked" else "other")
    if first is None or second is None:
        return None
    if first in earlier:
        return first, second
    return (second, first) if second in earlier else None


def _biases(problem: Problem, a: Attention, place: int) -> Iterator[Attempt]:
    region = problem.region
    ways = way(region, a, place)
    if ways is None:
        return
    kept, other = ways
    bias = region.value(other)
    if bias.dtype == bool or (bias < MASKED).any() or bias.ndim < 2:
        return
    name = problem.words(other)

    def with_bias(made: NDArray) -> Any:
        return {place: lambda get: get(kept) + made}

    yield Attempt("bias_missing", f"the bias of attention ({name}) is missing", {place: lambda get: get(kept)})
    if bias.shape[-1] == bias.shape[-2]:
        text = f"the bias of attention ({name}) is transposed: queries and keys are exchanged"
        yield Attempt("bias_transposed", text, with_bias(np.swapaxes(bias, -1, -2)))
        text = f"the bias of attention ({name}) is mirrored: relative positions have the other sign"
        yield Attempt("bias_mirrored", text, with_bias(bias[..., ::-1, ::-1]))
    for axis in range(bias.ndim - 2):
        if bias.shape[axis] > 1:
            yield Attempt(
                "bias_order",
                f"the bias of attention ({name}) has its heads in reverse order",
                with_bias(np.flip(bias, axis)),
            )
    if bias.ndim >= 3 and bias.shape[-3] > 1:
        heads, t, s = bias.shape[-3:]
        twisted = bias.reshape(*bias.shape[:-3], t * s * heads).reshape(*bias.shape[:-3], t, s, heads)
        text = f"the bias of attention ({name}) is reshaped to heads first without moving the axis of heads"
        yield Attempt("bias_order", text, with_bias(np.moveaxis(twisted, -1, -3)))
    root = math.sqrt(width(region, a))
    for factor, text in (
        (1 / root, "is divided by the root of the head's width, as the scores are"),
        (root, "isn't divided by the root of the head's width, as the scores are"),
        (2.0, "is twice"),
    ):
        yield Attempt("bias_scale", f"the bias of attention ({name}) {text}", with_bias(factor * bias))
    factor = measured(problem, lambda c: with_bias(c * bias), 1.0, 1.0)
    if factor is not None:
        text = f"the bias of attention ({name}) is {factor:.6g} times PyTorch's"
        yield Attempt("bias_scale", text, with_bias(factor * bias))


def _caps(problem: Problem, a: Attention) -> Iterator[Attempt]:
    region = problem.region
    nodes = [(i, place) for i, place in enumerate(a.chain) if region.node(place).op == "tanh"]
    for i, place in nodes:
        inner = region.node(place).argument("self")
        if inner is None or i + 1 >= len(a.chain):
            continue
        outer, start = a.chain[i + 1], a.chain[i - 2] if i > 1 else a.scores
        if region.node(outer).op != "mul":
            continue
        before = region.value(start)
        yield Attempt("softcap_missing", "the scores aren't capped by tanh", {outer: lambda get, s=start: get(s)})
        small = region.value(inner)
        cap = float(np.vdot(before, before) / np.vdot(small, before)) if np.vdot(small, before) else 1.0

        def capped(c: float, start: int = start, outer: int = outer) -> Any:
            return {outer: lambda get: c * np.tanh(get(start) / c)}

        for usual in (c for c in USUAL if abs(c - cap) > 1e-6 * cap):
            yield Attempt("softcap", f"the scores are capped at {usual:g}, not at {cap:.6g}", capped(usual))
        if (found := found_cap(problem, capped, cap)) is not None:
            yield Attempt("softcap", f"the scores are capped at {found:.6g}, not at {cap:.6g}", capped(found))
        return
    for cap in USUAL:
        changes = {a.logits: _capping(region, a.logits, cap)}
        yield Attempt("softcap", f"the scores are capped at {cap:g} by tanh", changes)


def _capping(region: Region, place: int, cap: float) -> Any:
    logits = region.value(place)

    def change(get: Get) -> NDArray:
        return np.where(logits < MASKED, logits, cap * np.tanh(logits / cap))

    return change
