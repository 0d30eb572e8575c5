"""Mistakes in sines and cosines of positions or times: base, the number of steps between frequencies, the argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Changes, Get, Node, run
from parity.causes.mistakes.attempts import Attempt, Problem, measured

_BASES = (10000.0, 1000.0, 100.0, 500.0, 100000.0, 500000.0, 1000000.0, 2.0)
_PRODUCTS = ("mul", "div", "outer", "einsum", "matmul", "mm")
_UNIT = 2.0**-53
_FACTORS = (1000.0, 1e-3, 2 * np.pi, 1 / (2 * np.pi), np.pi, 1 / np.pi)


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each product of numbers and frequencies that a sine or a cosine takes, wherever these come from."""
    region, seen = problem.region, set[int]()
    for place in region.operations:
        if region.node(place).op not in ("sin", "cos"):
            continue
        angle = _product(region, place)
        if angle is None or angle in seen:
            continue
        seen.add(angle)
        for frequencies, numbers in _operands(region, angle):
            yield from _of_frequencies(problem, frequencies, numbers)
            yield from _of_numbers(region, numbers)
    pair = [p for p in region.operations if region.node(p).op in ("sin", "cos")]
    if len({region.node(p).op for p in pair}) == 2:
        text = "sines and cosines are exchanged"
        yield Attempt("sine_cosine", text, {place: _turned(region, place) for place in pair})


def _turned(region: Region, place: int) -> Callable[[Get], NDArray]:
    """A sine where there is a cosine, and the other way round."""
    node = region.node(place)
    other = Node({"sin": "cos", "cos": "sin"}[node.op], node.args)
    return lambda get: run(other, get)


def _product(region: Region, place: int) -> int | None:
    """The product that a sine is taken of, behind moves of its values."""
    start = region.node(place).argument("self")
    while start is not None and region.node(start).op in MOVES and region.node(start).parents:
        start = region.node(start).parents[0]
    return start if start is not None and region.node(start).op in _PRODUCTS else None


def _operands(region: Region, angle: int) -> Iterator[tuple[int, int]]:
    """Frequencies, whose quotients are all the same, and what they are multiplied by."""
    parents = region.node(angle).parents
    if len(parents) == 2:
        for frequencies, numbers in (parents, parents[::-1]):
            values = region.value(frequencies)
            if isinstance(values, np.ndarray) and _step(values) is not None:
                yield frequencies, numbers


def _step(values: NDArray) -> float | None:
    """Logarithm of the quotient of neighbours; None if these are no frequencies."""
    row = np.asarray(values, np.float64).ravel()
    if row.size < 2 or row.size != max(values.shape) or not (row > 0).all():
        return None
    steps = np.diff(np.log(row))
    return float(steps[0]) if steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-4) else None


def _of_frequencies(problem: Problem, place: int, numbers: int) -> Iterator[Attempt]:
    values = np.asarray(problem.region.value(place), np.float64)
    count, step, first = values.size, _step(values) or 0.0, float(values.ravel()[0])

    def changes(other: float, start: float = first) -> Changes:
        made = (start * np.exp(other * np.arange(count))).reshape(values.shape)
        return {place: lambda get: made}

    for steps in (count - 1, count + 1, count / 2, count * 2):
        if steps > 0:
            text = f"frequencies fall by the base in {steps:g} steps, not in {count}"
            yield Attempt("frequency_steps", text, changes(step * count / steps))
    if count > 2 and not any(np.isclose(np.exp(abs(step) * count), base) for base in _BASES):
        text = f"frequencies fall by the base in {count} steps, not in {count - 1}"
        yield Attempt("frequency_steps", text, changes(step * (count - 1) / count))
    yield Attempt("frequency_steps", "frequencies begin a step later", changes(step, first * np.exp(step)))
    here, there = ("rise", "fall") if step < 0 else ("fall", "rise")
    text = f"frequencies {here} where PyTorch's {there}: the exponent has the other sign"
    largest = np.max(np.abs(problem.region.value(numbers)), initial=0.0) * first * np.exp(max(-step * count, 0.0))
    roundings = 64 * _UNIT * float(largest)  # of large angles, which sines see whole
    yield Attempt("frequency_sign", text, changes(-step), roundings=roundings)
    for base in _BASES:
        text = f"the frequencies' base is {base:g}, not {np.exp(abs(step) * count):.6g}"
        yield Attempt("frequency_base", text, changes(np.sign(step) * np.log(base) / count))
    if (other := measured(problem, changes, step, step)) is not None:
        text = f"neighbouring frequencies differ by a factor of {np.exp(other):.6g}, not {np.exp(step):.6g}"
        yield Attempt("frequency_base", text, changes(other))


def _of_numbers(region: Region, place: int) -> Iterator[Attempt]:
    def moved(get: Get, by: int) -> NDArray:
        return np.asarray(region.anew(place, get), np.float64) + by

    for by in (1, -1):
        text = f"positions or times are {'larger' if by > 0 else 'smaller'} by 1"
        yield Attempt("position_offset", text, {place: lambda get, by=by: moved(get, by)})
    for factor in _FACTORS:
        text = f"positions or times are {factor:.6g} times PyTorch's"
        yield Attempt("position_scale", text, {place: lambda get, factor=factor: factor * moved(get, 0)})
