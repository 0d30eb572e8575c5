"""Rotations of pairs of features in a graph, by what they do.

A rotation isn't looked for by how it is written. A part of the graph that is linear in its one input, and turns the
features of each place, is run on unit vectors, which gives the angle of each pair at each place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.mistakes.attempts import value
from parity.causes.numpy_operations.table import CannotRun

_LINEAR = MOVES | {"mul", "add", "sub", "neg", "cat", "stack", "div", "assign"}
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
        if start is None or not _whole(region, start, end):
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
            multiplied |= any(np.ndim(region.value(p)) > 0 for p in node.parents if p != parents[0])
        if not parents:
            return None
        front.remove(place)
        front |= set(parents)
    return front.pop() if len(front) == 1 and multiplied and end not in front else None


def _whole(region: Region, place: int, end: int) -> bool:
    """Whether two nodes give as much, each one array: what is split gives several."""
    values = region.value(place), region.value(end)
    return all(isinstance(each, np.ndarray) for each in values) and values[0].shape == values[1].shape


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
