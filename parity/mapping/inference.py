"""Which operations a move of values consists of, read off from where every value went.

The kinds of layers move weights by functions. A mapping has to say the same in words that can be written down: so the
function moves an array that holds each value's place instead of the values. What is found is then applied to the places
itself and must give the same, every one: so it is the same move, whatever the function does.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from parity.mapping import operations
from parity.mapping.operations import Flip, Operation, Reshape, Shape, Split, Transpose

_MOST_AXES = 6  # whose orders are tried one by one


def places(shape: Shape) -> NDArray:
    """An array of this shape that holds each element's place in row order."""
    size = math.prod(shape)
    return np.arange(size, dtype=np.int32 if size < 2**31 else np.int64).reshape(shape)


def moves(moved: NDArray, shape: Shape) -> list[Operation] | None:
    """The operations after which an array of the shape `shape` lies as `moved`.

    Args:
        moved: `places(shape)`, or a part of them, moved.
        shape: of the tensor before.

    Returns:
        The operations, as few as will do; None if no sequence of them does this.
    """
    found: list[Operation] = []
    if not moved.size:
        return [Reshape(moved.shape)] if moved.size == math.prod(shape) else None
    if moved.size < math.prod(shape):
        part = _part(moved, shape)
        if part is None:
            return None
        found, low, box = part
        coordinates = np.unravel_index(moved, shape)
        inside = tuple(axis - start for axis, start in zip(coordinates, low, strict=True))
        moved, shape = np.ravel_multi_index(inside, box), box
    for search in (_of_whole_axes, _of_parts_of_axes, _reshaped_anyhow):
        way = search(moved, shape)
        if way is not None and np.array_equal(operations.apply(way, places(shape)), moved):
            return found + way
    return None


def _part(moved: NDArray, shape: Shape) -> tuple[list[Operation], Shape, Shape] | None:
    """Splits that give the box in which all the places lie, where it begins, and its shape."""
    low, high = (tuple(int(n) for n in np.unravel_index(int(end), shape)) for end in (moved.min(), moved.max()))
    box = tuple(last - first + 1 for first, last in zip(low, high, strict=True))
    if min(box) < 1 or math.prod(box) != moved.size:
        return None
    splits: list[Operation] = [
        Split(axis, first, first + size)
        for axis, (first, size) in enumerate(zip(low, box, strict=True))
        if size < shape[axis]
    ]
    coordinates = np.unravel_index(moved, shape)
    inside = all(((first <= c) & (c <= last)).all() for c, first, last in zip(coordinates, low, high, strict=True))
    return (splits, low, box) if inside else None


def _of_whole_axes(moved: NDArray, shape: Shape) -> list[Operation] | None:
    """An order of the axes, some of them flipped, if steps along each axis say so."""
    rank = len(shape)
    if moved.ndim != rank or rank > _MOST_AXES:
        return None
    strides, steps = [math.prod(shape[axis + 1 :]) for axis in range(rank)], _steps(moved)
    for order in itertools.permutations(range(rank)):
        if all(
            shape[axis] == size and (size == 1 or abs(step) == strides[axis])
            for axis, size, step in zip(order, moved.shape, steps, strict=True)
        ):
            flipped = sorted(axis for axis, step in zip(order, steps, strict=True) if step < 0)
            return _needed(Flip(tuple(flipped)), Transpose(order))
    return None


def _steps(moved: NDArray) -> list[int]:
    """How far apart the first two places along each axis were; 0 along an axis of one."""
    found = []
    for axis, size in enumerate(moved.shape):
        second = tuple(int(axis == other) for other in range(moved.ndim))
        found.append(int(moved[second]) - int(moved.flat[0]) if size > 1 else 0)
    return found


def _of_parts_of_axes(moved: NDArray, shape: Shape) -> list[Operation] | None:
    """Axes divided, put into another order, and joined."""
    factors: list[tuple[int, int]] = []
    for axis in range(moved.ndim):
        line = moved[tuple(slice(None) if axis == other else 0 for other in range(moved.ndim))]
        parts = _divided(line.astype(np.int64))
        if parts is None:
            return None
        factors += parts
    before = sorted(factors, key=lambda factor: -abs(factor[1]))
    sizes = tuple(size for size, _ in before)
    if math.prod(sizes) != math.prod(shape) or len({*before}) < len(before):
        return None
    flipped = tuple(axis for axis, (_, step) in enumerate(before) if step < 0)
    order = tuple(before.index(factor) for factor in factors)
    first = [Reshape(sizes)] if sizes != shape else []
    last = [Reshape(moved.shape)] if tuple(sizes[axis] for axis in order) != moved.shape else []
    return [*first, *_needed(Flip(flipped), Transpose(order)), *last]


def _reshaped_anyhow(moved: NDArray, shape: Shape) -> list[Operation] | None:
    """An order of the axes, and then another shape that cuts across them."""
    rank = len(shape)
    for order in itertools.permutations(range(rank)) if rank < 5 else ():
        if np.array_equal(places(shape).transpose(order).reshape(moved.shape), moved):
            return [*_needed(Flip(()), Transpose(order)), Reshape(moved.shape)]
    return None


def _divided(line: NDArray) -> list[tuple[int, int]] | None:
    """Sizes and steps of the axes that were joined into one, the slowest first; none of one place."""
    found: list[tuple[int, int]] = []
    line = line - line[:1]
    while len(line) > 1:
        even = line == np.arange(len(line)) * line[1]
        run = len(line) if even.all() else int(np.argmin(even))
        if len(line) % run:
            return None
        found.insert(0, (run, int(line[1])))
        line = line[::run]
    return found


def _needed(flip: Flip, transpose: Transpose) -> list[Operation]:
    """Those of the two that change anything."""
    ordered = transpose.axes == tuple(range(len(transpose.axes)))
    return [*([flip] if flip.axes else []), *([] if ordered else [transpose])]
