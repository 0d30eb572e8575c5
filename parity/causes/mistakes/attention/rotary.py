"""Mistakes in rotary embeddings: pairs, signs, base, positions, and what they are applied to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.mistakes.attempts import Attempt, Problem, each_and_all, value
from parity.causes.mistakes.attention.attention import find
from parity.causes.mistakes.attention.heads import of
from parity.causes.mistakes.attention.rotations import Rotation, find_rotations

_BASES = (10000.0, 1000.0, 100.0, 500.0, 100000.0, 500000.0, 1000000.0, 8000000.0, 10000000.0, 2 * np.pi)


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
