"""What a JAX function computes on the way, to be looked up by the values alone, in whatever order they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.causes.cause import distinct

_CLOSE = 1e-10  # of a value, or of what is usual: as far as the same values may lie apart
_USUAL = 10  # times the median
_MASKED = 1e7  # larger values stand for nothing
_FEWEST = 4  # different values that two arrays must share to be the same
_MOST_AXES = 5  # of arrays whose axes are tried in every order


class JaxValues:
    """Arrays in the order in which they came about.

    Args:
        arrays: of the program of a function; those with the same values in another order count once.
    """

    def __init__(self, arrays: Sequence[NDArray]) -> None:
        self.arrays: list[NDArray] = []
        self._sorted: list[NDArray] = []
        by_size: dict[int, list[int]] = {}
        seen: set[bytes] = set()
        for array in arrays:
            if not comparable(array):
                continue
            ordered = np.sort(array, axis=None)
            same = ordered.tobytes()
            if same in seen:  # moved values are the same ones
                continue
            seen.add(same)
            by_size.setdefault(array.size, []).append(len(self.arrays))
            self.arrays.append(array)
            self._sorted.append(ordered)
        self._places = {size: np.asarray(places) for size, places in by_size.items()}
        self._sums = {size: np.asarray([self._sorted[p].sum() for p in places]) for size, places in by_size.items()}

    def find(self, values: NDArray, without: Iterable[int] = ()) -> tuple[int, float] | None:
        """The first array that holds the same values in some order, and the largest difference between them.

        Args:
            values: any.
            without: places of arrays that don't count.
        """
        if values.size not in self._places or not comparable(values):
            return None
        ordered = np.sort(values, axis=None)
        close = allowed(ordered)
        near = np.abs(self._sums[values.size] - ordered.sum()) <= close.sum()
        for place in self._places[values.size][near]:
            if place not in without:
                apart = np.abs(self._sorted[place] - ordered)
                if (apart <= close).all():
                    return int(place), float(apart.max())
        return None

    def apart(self, place: int, values: NDArray) -> float:
        """The largest difference between an array's values and as many others, each in their order of size."""
        return float(np.max(np.abs(self._sorted[place] - np.sort(values, axis=None))))

    def of_size(self, size: int) -> list[int]:
        """Places of the arrays of as many values."""
        return [int(p) for p in self._places.get(size, ())]

    def likely(self, like: NDArray, places: Sequence[int]) -> NDArray | None:
        """What most likely stands for other values: the first array of these places that can be laid as they are.

        Where the next one is the same with a bias, which PyTorch's products have added, that one.
        """
        laid = ((p, each) for p in places if (each := laid_like(self.arrays[p], like)) is not None)
        first, second = next(laid, None), next(laid, None)
        if first is not None and second is not None:
            one, two = self.arrays[first[0]], self.arrays[second[0]]
            if one.shape == two.shape and _is_bias(two - one, float(np.median(allowed(two)))):
                return second[1]
        return None if first is None else first[1]


def comparable(values: NDArray) -> bool:
    """Whether values are so many different ones that others are hardly the same by chance."""
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating) or values.size < 2:
        return False
    return bool(np.isfinite(values).all()) and distinct(values[np.abs(values) < _MASKED]) >= min(_FEWEST, values.size)


def allowed(values: NDArray) -> NDArray:
    """How far apart each of the same values may lie: masked ones, which are very large, widen no other's limit."""
    sizes = np.abs(values)
    usual = sizes[(sizes > 0) & (sizes < _MASKED)]
    return _CLOSE * (sizes + (_USUAL * float(np.median(usual)) if usual.size else 0.0))


def laid_like(array: NDArray, like: NDArray) -> NDArray | None:
    """An array with its axes in the order that makes it most like another one; None if its shape can't be had."""
    found = []
    if array.ndim == like.ndim <= _MOST_AXES:
        for axes in itertools.permutations(range(array.ndim)):
            moved = np.transpose(array, axes)
            if moved.shape == like.shape:
                found.append(moved)
    elif array.size == like.size:
        found.append(array.reshape(like.shape))
    return max(found, key=lambda each: abs(float(np.vdot(each - each.mean(), like))), default=None)


def _is_bias(values: NDArray, close: float) -> bool:
    """Whether values are the same in all places, but for those of one axis."""
    axes = range(values.ndim)
    return any(np.ptp(values, axis=tuple(a for a in axes if a != own)).max() <= close for own in axes)
