"""Mistakes in rotary embeddings: pairs, signs, base, positions, and what they are applied to.

A rotation isn't looked for by how it is written. A part of the graph that is linear in its one input, and turns the
features of each place, is run on unit vectors, which gives the angle of each pair at each place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem, each_and_all, value
from parity.causes.attention import find
from parity.causes.graph import MOVES, Region
from parity.causes.heads import of
from parity.causes.numpy_table import CannotRun

_LINEAR = MOVES | {"mul", "add", "sub", "neg", "cat", "stack", "div", "assign"}
_BASES = (10000.0, 1000.0, 100.0, 500.0, 100000.0, 500000.0, 1000000.0, 8000000.0, 10000000.0, 2 * np.pi)
_WIDEST = 256
_MOST_ELEMENTS = 60_000_000  # of the matrices at all places together


@dataclass(frozen=True)
class Rotation:
    """A part of a graph that turns pairs of features.

    Attributes:
        start: the node that it takes; likewise end, what it gives.
        end: see `start`.
        pairs: (P, 2) places of the features of each pair, in order of their frequencies.
        angles: of each pair at each place, of the input's shape but for the last axis, which has P.
    """

    start: int
    end: int
    pairs: NDArray
    angles: NDArray

    def turned(self, x: NDArray, pairs: NDArray, angles: NDArray) -> NDArray:
        """An input, turned in other pairs or by other angles."""
        result = np.array(x, np.float64)
        first, second = x[..., pairs[:, 0]], x[..., pairs[:, 1]]
        cos, sin = np.cos(angles), np.sin(angles)
        result[..., pairs[:, 0]] = first * cos - second * sin
        result[..., pairs[:, 1]] = first * sin + second * cos
        return result


def find_rotations(region: Region) -> list[Rotation]:
    """The rotations in a region, each once, the whole of each."""
    found: dict[int, Rotation] = {}
    for end in region.operations:
        node = region.node(end)
        if node.op not in (
            "add",
            "sub",
            "cat",
            "view",
            "_unsafe_view",
            "reshape",
            "stack",
            "flatten",
            "assign",
            "view_as_real",
        ):
            continue
        start = _start(region, end)
        if start is None or region.value(start).shape != region.value(end).shape:
            continue
        rotation = _rotation(region, start, end)
        if rotation is not None:
            found[start] = rotation  # later nodes hold more of it
    whole = list(found.values())
    return [each for each in whole if not any(_within(region, each, other) for other in whole if other is not each)]


def _within(region: Region, part: Rotation, whole: Rotation) -> bool:
    """Whether one rotation is a part of another one."""
    inside = region.graph.before(whole.end, [whole.start])
    return part.start in inside and part.end in inside and part.start != whole.start


def _start(region: Region, end: int) -> int | None:
    """The one node that a linear part of the graph takes; None if `end` is no end of a rotation."""
    front, multiplied = {end}, False
    for _ in range(64):
        place = max(front)
        node = region.node(place)
        begun = place != end and len(front) == 1 and multiplied and _whole(region, place, end)
        if node.op not in _LINEAR or begun:
            break
        parents = [p for p in node.parents if region.of_data(p)]
        if node.op in ("mul", "div"):
            if len(parents) != 1:
                return None
            multiplied |= any(region.value(p).ndim > 0 for p in node.parents if p != parents[0])
        if not parents:
            return None
        front.remove(place)
        front |= set(parents)
    return front.pop() if len(front) == 1 and multiplied and end not in front else None


def _whole(region: Region, place: int, end: int) -> bool:
    return region.value(place).shape == region.value(end).shape


def _rotation(region: Region, start: int, end: int) -> Rotation | None:
    x = region.value(start)
    d = x.shape[-1] if x.ndim > 1 else 0
    if not 2 <= d <= _WIDEST or x.size * d > _MOST_ELEMENTS or not np.issubdtype(x.dtype, np.floating):
        return None
    matrix = np.zeros((*x.shape, d))  # [..., output, input]
    try:
        for i in range(d):
            unit = np.zeros(x.shape)
            unit[..., i] = 1.0
            matrix[..., i] = region.changed({start: value(unit)}, end)
        zero = region.changed({start: value(np.zeros(x.shape))}, end)
    except (CannotRun, ValueError, IndexError, MemoryError):
        return None
    if zero.any():
        return None
    return _read(matrix, start, end)


def _read(matrix: NDArray, start: int, end: int) -> Rotation | None:
    d = matrix.shape[-1]
    used = np.abs(matrix).reshape(-1, d, d).max(axis=0) > 1e-12
    np.fill_diagonal(used, False)
    partners = [np.flatnonzero(row) for row in used]
    if not any(len(p) for p in partners) or any(len(p) > 1 for p in partners):
        return None
    pairs = np.array([(i, int(p[0])) for i, p in enumerate(partners) if len(p) and p[0] > i])
    if not len(pairs) or len(pairs) * 2 != sum(len(p) > 0 for p in partners):
        return None
    first, second = pairs[:, 0], pairs[:, 1]
    cos, sin = matrix[..., first, first], matrix[..., second, first]
    good = np.allclose(cos, matrix[..., second, second]) and np.allclose(sin, -matrix[..., first, second])
    if not good or not np.allclose(cos**2 + sin**2, 1.0):
        return None
    return Rotation(start, end, pairs, np.arctan2(sin, cos))


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in the rotations that lead to attention."""
    region = problem.region
    rotations = find_rotations(region)
    yield from each_and_all(_mistakes(region, rotations))
    if rotations:
        yield from _values(region, rotations[0])


def _mistakes(region: Region, rotations: list[Rotation]) -> Iterator[Attempt]:
    for each in rotations:
        x = region.value(each.start)

        def made(
            key: str, text: str, pairs: NDArray, angles: NDArray, each: Rotation = each, x: NDArray = x
        ) -> Attempt:
            return Attempt(key, text, {each.end: value(each.turned(x, pairs, angles))})

        pairs, angles = each.pairs, each.angles
        yield Attempt("rotary_missing", "the rotary embedding is missing", {each.end: value(x)})
        for text, other in _pairs(each.pairs):
            yield made("rotary_pairs", text, other, angles)
            yield made("rotary_pairs", f"{text}, and the sines have the other sign", other, -angles)
        yield made(
            "rotary_sign", "the rotary embedding turns the other way: its sines have the other sign", pairs, -angles
        )
        for text, other in _angles(angles):
            yield made("rotary_positions", text, pairs, other)
        for text, other in _frequencies(angles, len(pairs)):
            yield made("rotary_base", text, pairs, other)
        twice = each.turned(region.value(each.end), pairs, angles)
        yield Attempt("rotary_twice", "the rotary embedding is applied twice", {each.end: value(twice)})
        yield from _mixed(each, x)


def _mixed(each: Rotation, x: NDArray) -> Iterator[Attempt]:
    """Features of one layout turned by the table of the other one, and halves that are rotated with a wrong sign."""
    pairs, angles = each.pairs, each.angles
    features = np.sort(pairs.ravel())
    half = len(features) // 2
    tables = {
        "repeats": np.repeat(angles, 2, -1),
        "tiles": np.concatenate([angles, angles], -1),
    }
    y = x[..., features]
    halves = np.concatenate([-y[..., half:], y[..., :half]], -1)
    neighbours = np.stack([-y[..., 1::2], y[..., ::2]], -1).reshape(y.shape)
    for what, partner in (("halves", halves), ("neighbours", neighbours)):
        for how, table in tables.items():
            result = np.array(x, np.float64)
            result[..., features] = y * np.cos(table) + partner * np.sin(table)
            text = f"the rotary embedding pairs {what}, and its table {how} the frequencies"
            yield Attempt("rotary_pairs", text, {each.end: value(result)})
    for partner in (halves, neighbours):
        result = np.array(x, np.float64)
        table = tables["tiles"] if partner is halves else tables["repeats"]
        places = np.arange(len(features))
        turned = places < half if partner is halves else places % 2 == 0
        result[..., features] = y * np.cos(table) + np.where(turned, -partner, partner) * np.sin(table)
        text = "the rotary embedding lacks the minus sign of the turned half"
        yield Attempt("rotary_sign", text, {each.end: value(result)})


def _pairs(pairs: NDArray) -> Iterator[tuple[str, NDArray]]:
    features = np.sort(pairs.ravel())
    half = len(features) // 2
    layouts = {
        "halves": np.stack([features[:half], features[half:]], -1),
        "neighbours": features.reshape(-1, 2),
    }
    own = next((name for name, each in layouts.items() if np.array_equal(each, pairs)), None)
    for name, each in layouts.items():
        if name != own and not np.array_equal(each, pairs):
            text = f"the rotary embedding pairs {'neighbouring features' if name == 'neighbours' else 'the two halves'}"
            rest = "the two halves" if name == "neighbours" else "neighbouring features"
            yield f"{text}, PyTorch's {rest}", each


def _place_axis(angles: NDArray) -> int | None:
    """The axis of places: along which angles differ."""
    for axis in range(angles.ndim - 1):
        if angles.shape[axis] > 1 and np.ptp(np.cos(angles), axis=axis).max() > 1e-9:
            return axis
    return None


def _step(angles: NDArray, axis: int) -> NDArray:
    """Frequencies: by how much the angles grow from one place to the next."""
    one, two = (np.take(angles, [i], axis) for i in (0, 1))
    return np.mod(two - one + np.pi, 2 * np.pi) - np.pi


def _angles(angles: NDArray) -> Iterator[tuple[str, NDArray]]:
    axis = _place_axis(angles)
    if axis is None:
        return
    step = _step(angles, axis)
    for moved in (1, -1, 2, -2):
        text = f"rotary positions are off by one: they begin {'later' if moved > 0 else 'earlier'} by {abs(moved)}"
        yield text, angles + moved * step
    yield "rotary positions run backwards", np.flip(angles, axis)
    yield "rotary frequencies are in reverse order", angles[..., ::-1]
    yield "rotary positions are all the first one", np.broadcast_to(np.take(angles, [0], axis), angles.shape)
    for factor in (2.0, 0.5, np.pi, 2 * np.pi):
        yield f"rotary positions are multiplied by {factor:.4g}", factor * _unwrapped(angles, axis)


def _unwrapped(angles: NDArray, axis: int) -> NDArray:
    shape = [1] * angles.ndim
    shape[axis] = angles.shape[axis]
    first = np.take(angles, [0], axis)
    return first + np.arange(angles.shape[axis]).reshape(shape) * _step(angles, axis)


def _frequencies(angles: NDArray, count: int) -> Iterator[tuple[str, NDArray]]:
    """Other bases: the frequency of pair i of P is base^(-i / P)."""
    axis = _place_axis(angles)
    if axis is None or count < 2:
        return
    step = np.abs(_step(angles, axis)).reshape(-1, count)[0]
    if (step <= 0).any():
        return
    whole = _unwrapped(angles, axis)
    positions = whole[..., :1] / step[0]
    own = float((step[0] / step[1]) ** count)
    powers = np.arange(count) / count
    for base in _BASES:
        if abs(base - own) > 1e-6 * own:
            yield f"the rotary embedding has the base {base:g}, not {own:.6g}", positions * base**-powers
    text = "the rotary embedding's frequencies are divided by the number of pairs, not of features"
    yield text, positions * own ** -(2 * powers)
    yield "the rotary embedding's exponents are half as large", positions * own ** -(powers / 2)
    if count > 1:
        last = np.arange(count) / (count - 1)
        yield "the rotary embedding's last frequency is 1 / base", positions * own**-last


def _values(region: Region, rotation: Rotation) -> Iterator[Attempt]:
    """Values turned as well as queries and keys."""
    for a in find(region):
        heads = of(region, a)
        if heads is None or a.out is None:
            continue
        angles = rotation.angles
        shape = region.value(rotation.start).shape
        if angles.ndim == 4 and shape[1] == heads.q.shape[2] and shape[2] == heads.q.shape[1]:
            angles = np.swapaxes(angles, 1, 2)
        v = heads.v
        if angles.ndim != 4 or v.shape[2] != angles.shape[2] or v.shape[3] != shape[-1]:
            continue
        turned = rotation.turned(v, rotation.pairs, np.broadcast_to(angles[:1, :1], (*v.shape[:3], angles.shape[-1])))
        shares = region.value(a.shares).reshape(*heads.q.shape[:3], -1)
        text = "values are turned by the rotary embedding, too"
        yield Attempt("rotary_values", text, {a.out: value(heads.back(shares @ turned))})
