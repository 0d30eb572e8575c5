"""Mistakes in attention's heads: how they are split and joined, how many there are, who shares keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.mistakes.attention.attention import Attention, find
from parity.causes.mistakes.attention.masks import unmasked
from parity.causes.numpy_operations.operations import softmax

_SPLITS = {
    "last": "",
    "interleaved": "heads are split interleaved: the last axis is (features, heads), not (heads, features)",
    "unmoved": "heads are split by reshaping alone: the axis of places isn't moved behind them",
}
_MERGES = {
    "last": "",
    "interleaved": "heads are put together interleaved, as (features, heads), not (heads, features)",
    "unmoved": "heads aren't transposed back before they are put together",
}


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of an attention as (N, heads, places, features), and where they come from.

    Attributes:
        axes: of the result's node, by which it becomes such an array.
        result: its values as such an array.
        shape: as the node has them.
        out: the node.
    """

    q: NDArray
    k: NDArray
    v: NDArray
    axes: tuple[int, ...] | None
    result: NDArray
    shape: tuple[int, ...]
    out: int

    def back(self, result: NDArray) -> NDArray:
        """A result as the node has it."""
        return (result if self.axes is None else np.transpose(result, np.argsort(self.axes))).reshape(self.shape)


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in the heads of each attention."""
    for a in find(problem.region):
        heads = of(problem.region, a)
        if heads is not None:
            yield from _shapes(problem.region, a, heads)
            yield from _groups(problem.region, a, heads)


def of(region: Region, a: Attention) -> Heads | None:
    """Heads as they meet in the products; None where these can't be read."""
    if a.out is None:
        return None
    product, mixed = region.node(a.scores), region.node(a.out)
    if product.op == mixed.op == "einsum":
        return _of_einsum(region, a, a.out)
    if product.op not in ("matmul", "bmm") or mixed.op not in ("matmul", "bmm"):
        return None
    shares_first = _follows(region, mixed.parents[0], a.shares)
    q, k = (region.value(p) for p in product.parents)
    k = np.swapaxes(k, -1, -2)
    v = region.value(mixed.parents[1 if shares_first else 0])
    result = region.value(a.out)
    if not shares_first or q.ndim != v.ndim:
        return None
    if q.ndim == 3:  # (N heads, places, features)
        shape = next((s for p in (a.shares, *a.chain) if len(s := region.value(p).shape) == 4), None)
        n = shape[0] if shape is not None and shape[0] * shape[1] == len(q) else _examples(region, len(q))
        if n is None:
            return None
        q, k, v = (x.reshape(n, -1, *x.shape[1:]) for x in (q, k, v))
        return Heads(q, k, v, None, result.reshape(n, -1, *result.shape[1:]), result.shape, a.out)
    return Heads(q, k, v, None, result, result.shape, a.out) if q.ndim == 4 else None


def _examples(region: Region, both: int) -> int | None:
    """Examples in a batch, where they share an axis with the heads: as many as the sink has, in either layout."""
    shape = region.value(region.sink).shape
    return next((n for n in shape[:2] if 0 < n < both and both % n == 0), None)


def _follows(region: Region, place: int, source: int) -> bool:
    while place != source:
        node = region.node(place)
        if node.op not in MOVES or not node.parents:
            return False
        place = node.parents[0]
    return True


def _of_einsum(region: Region, a: Attention, node: int) -> Heads | None:
    """By the letters of both equations: n examples, h heads, t queries, s keys, d features."""
    product, mixed = region.node(a.scores), region.node(node)
    left, _, out = product.args["equation"].replace(" ", "").partition("->")
    one, two = left.split(",")
    if len(out) != 4 or not one or len(one) != 4 or len(two) != 4:
        return None
    s = out[a.key_axis]
    t = out[a.query_axis]
    (d,) = set(one) - set(out) or {""}
    n, *rest = (c for c in out if c not in (s, t))
    if len(rest) != 1 or not d:
        return None
    h = rest[0]
    q, k = (one, product.parents[0]), (two, product.parents[1])
    if t in two:
        q, k = k, q
    left, _, end = mixed.args["equation"].replace(" ", "").partition("->")
    operands = left.split(",")
    mine = [i for i, p in enumerate(mixed.parents) if _follows(region, p, a.shares)]
    if len(mine) != 1 or len(operands) != 2:
        return None
    other = operands[1 - mine[0]]
    same = dict(zip(operands[mine[0]], out, strict=False))  # letters there to those of the scores
    value_letters = [same.get(c, "e") for c in other]
    end_letters = [same.get(c, "e") for c in end]
    if sorted(value_letters) != sorted(f"{n}{h}{s}e") or sorted(end_letters) != sorted(f"{n}{h}{t}e"):
        return None

    def ordered(letters: str | list[str], place: int, wanted: str) -> NDArray:
        return np.transpose(region.value(place), [list(letters).index(c) for c in wanted])

    axes = tuple(end_letters.index(c) for c in f"{n}{h}{t}e")
    result = np.transpose(region.value(node), axes)
    return Heads(
        ordered(q[0], q[1], f"{n}{h}{t}{d}"),
        ordered(k[0], k[1], f"{n}{h}{s}{d}"),
        ordered(value_letters, mixed.parents[1 - mine[0]], f"{n}{h}{s}e"),
        axes,
        result,
        region.value(node).shape,
        node,
    )


def merged(x: NDArray, way: str = "last") -> NDArray:
    """(N, heads, places, features) as (N, places, width)."""
    n, h, t, d = x.shape
    if way == "unmoved":
        return x.reshape(n, t, h * d)
    return x.transpose(0, 2, 1, 3).reshape(n, t, h * d) if way == "last" else x.transpose(0, 2, 3, 1).reshape(n, t, -1)


def split(x: NDArray, heads: int, way: str = "last") -> NDArray:
    """(N, places, width) as (N, heads, places, features)."""
    n, t, w = x.shape
    if way == "unmoved":
        return x.reshape(n, heads, t, w // heads)
    if way == "interleaved":
        return x.reshape(n, t, w // heads, heads).transpose(0, 3, 1, 2)
    return x.reshape(n, t, heads, w // heads).transpose(0, 2, 1, 3)


def _shapes(region: Region, a: Attention, x: Heads) -> Iterator[Attempt]:
    count = x.q.shape[1]
    same = x.q.shape[1] == x.k.shape[1] == x.v.shape[1]
    if not same:
        return
    for way, text in _MERGES.items():
        if way != "last":
            result = x.back(split(merged(x.result, way), count))
            yield Attempt("heads_merged", text, {x.out: value(result)})
    rows = [merged(each) for each in (x.q, x.k, x.v)]
    for how, text in _SPLITS.items():
        if how == "last":
            continue
        q, k, v = (split(each, count, how) for each in rows)
        for way, more in _MERGES.items():
            words = f"{text}, and {more}" if more else text
            if (change := _attended(region, a, x, (q, k, v), way)) is not None:
                yield Attempt("heads_split", words, change)
        for name, parts in {"queries": (q, x.k, x.v), "keys": (x.q, k, x.v), "values": (x.q, x.k, v)}.items():
            if (change := _attended(region, a, x, parts, "last")) is not None:
                yield Attempt("heads_split", f"of {name}, {text}", change)
    yield from _numbers(region, a, x, rows)


def _attended(
    region: Region, a: Attention, x: Heads, parts: tuple[NDArray, NDArray, NDArray], way: str
) -> Changes | None:
    """The change to other queries, keys and values, of the same shapes; None for code that can't be followed."""
    q, k, v = parts
    scores, logits = region.value(a.scores), region.value(a.logits)
    made = (q @ np.swapaxes(k, -1, -2)).reshape(scores.shape) if scores.ndim != 4 else q @ np.swapaxes(k, -1, -2)
    if made.shape != scores.shape or logits.size != scores.size:
        return None
    weights = region.changed({a.scores: value(made)}, a.shares).reshape((*x.q.shape[:3], x.k.shape[2]))
    result = weights @ v
    if way != "last":
        result = split(merged(result, way), result.shape[1])
    return {x.out: value(x.back(result))}


def _numbers(region: Region, a: Attention, x: Heads, rows: list[NDArray]) -> Iterator[Attempt]:
    """Another number of heads, which scales the scores by the width that they then have."""
    count, d = x.q.shape[1], x.q.shape[3]
    free, scores = unmasked(region, a), region.value(a.scores)
    if free is None or free.shape != scores.shape or scores.ndim < 3:
        return
    scale = float(np.vdot(free, scores) / np.vdot(scores, scores))
    if not np.allclose(free, scale * scores, rtol=1e-9, atol=1e-12):
        return
    masks = (region.value(a.logits) >= -5000.0).reshape(*x.q.shape[:3], -1)
    if not (masks == masks[:, :1]).all():
        return
    whole = count * d
    for other in (n for n in range(1, min(whole, 128) + 1) if whole % n == 0 and n != count):
        q, k, v = (split(each, other) for each in rows)
        for factor in (math.sqrt(d * other / whole), 1.0):
            logits = np.where(masks[:, :1], scale * factor * (q @ np.swapaxes(k, -1, -2)), -np.inf)
            result = softmax({"self": logits, "dim": -1}) @ v
            text = f"there are {other} heads, not {count}"
            yield Attempt("heads_number", text, {x.out: value(x.back(split(merged(result), count)))})


def _groups(region: Region, a: Attention, x: Heads) -> Iterator[Attempt]:
    """Keys and values that several heads share, given to others."""
    count = x.q.shape[1]
    if x.k.shape[1] != count:
        return
    shared = _shared(x.k)
    if shared is None or shared != _shared(x.v):
        return
    groups, in_a_row = shared
    heads = np.arange(count)
    own = heads[:: count // groups] if in_a_row else heads[:groups]
    orders = {
        "kv_heads_order": (
            heads % groups if in_a_row else heads * groups // count,
            (
                "keys and values are repeated in the wrong order: head by head in turn (tile), not each several times"
                if in_a_row
                else "keys and values are repeated each several times in a row, not in turn (tile)"
            ),
        ),
        "kv_heads_first": (np.zeros(count, int), "all heads use the first keys and values"),
        "kv_heads_reversed": ((heads * groups // count)[::-1], "keys and values go to the groups in reverse order"),
    }
    for order in (heads.reshape(groups, -1).T.ravel(), heads.reshape(-1, groups).T.ravel()):
        if (change := _attended(region, a, x, (x.q[:, order], x.k, x.v), "last")) is not None:
            text = "heads of queries are taken in another order: those of one group lie apart, not side by side"
            yield Attempt("query_groups", text, change)
    for key, (order, text) in orders.items():
        k, v = x.k[:, own[order]], x.v[:, own[order]]
        for parts, words in (
            ((x.q, k, v), text),
            ((x.q, k, x.v), f"of keys, {text}"),
            ((x.q, x.k, v), f"of values, {text}"),
        ):
            if (change := _attended(region, a, x, parts, "last")) is not None:
                yield Attempt(key, words, change)


def _shared(x: NDArray) -> tuple[int, bool] | None:
    """Into how many different ones heads fall, and whether equal ones stand in a row; None if all differ."""
    count = x.shape[1]
    for groups in (n for n in range(1, count) if count % n == 0):
        if (
            x.reshape(len(x), groups, count // groups, -1) == x[:, :: count // groups].reshape(len(x), groups, 1, -1)
        ).all():
            return groups, True
        if (x.reshape(len(x), count // groups, groups, -1) == x[:, :groups].reshape(len(x), 1, groups, -1)).all():
            return groups, False
    return None
