"""How maps and rows lie on both sides: N C H W in PyTorch, N H W C in Flax; common to all kinds of layers.

A map that was flattened lies in rows of C H W in PyTorch, of H W C in Flax, or isn't flattened there. Flax's layers
of several axes (`DenseGeneral`) keep heads and their values apart, (N, T, heads, dim), where PyTorch has
(N, T, heads * dim).
Only NumPy is used: these are moves of values, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference


@dataclass(frozen=True)
class Layout:
    """How one reference activation lies in the candidate's array.

    Attributes:
        moved: whether the channel axis moves from second to last.
        map_shape: (C, H, W) of the map whose flattening the reference holds, if the rows follow H, W, C.
        shape: shape in the candidate, where it keeps the map unflattened; None if as moved.
        last: axes in the candidate that the reference holds as its last one; None if it is one there, too.
        axes: order of the reference's axes in the candidate, where it is another than these.
        lead: axes of one in front that the reference has more.
        padded: zeros before and after each axis of the reference, which the candidate's layer adds by itself.
        joined: the reference's shape and the candidate's, where a map's places are several axes in one of them only.
    """

    moved: bool = False
    map_shape: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    last: tuple[int, ...] | None = None
    axes: tuple[int, ...] = ()
    lead: int = 0
    padded: tuple[tuple[int, int], ...] = ()
    joined: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def to_flax(self, array: NDArray) -> NDArray:
        """A reference activation as the candidate holds it."""
        if self.padded:
            sides = zip(self.padded, array.shape, strict=True)
            array = array[tuple(slice(before, size - after) for (before, after), size in sides)]
        if self.joined is not None:
            return array.reshape(self.joined[1])
        if self.axes:
            return array.transpose(self.axes)
        if self.lead:
            return array.reshape(array.shape[self.lead :])
        if self.last is not None:
            return array.reshape(*array.shape[:-1], *self.last)
        if self.map_shape is not None:
            array = channels_last(array.reshape(array.shape[0], *self.map_shape))
            array = array.reshape(self.shape or (array.shape[0], -1))
        elif self.moved:
            array = channels_last(array)
        return array if self.shape is None else array.reshape(self.shape)

    def to_torch(self, array: NDArray) -> NDArray:
        """A candidate activation as the reference holds it."""
        if self.joined is not None:
            return array.reshape(self.joined[0])
        if self.axes:
            return array.transpose(np.argsort(self.axes))
        if self.lead:
            return array[(None,) * self.lead]
        if self.last is not None:
            return array.reshape(*array.shape[: -len(self.last)], -1)
        if self.map_shape is not None:
            channels, *spatial = self.map_shape
            return channels_first(array.reshape(array.shape[0], *spatial, channels)).reshape(array.shape[0], -1)
        array = channels_first(array) if self.moved else array
        return np.pad(array, self.padded) if self.padded else array


def channels_last(array: NDArray) -> NDArray:
    """N C ... to N ... C."""
    return np.moveaxis(array, 1, -1)


def channels_first(array: NDArray) -> NDArray:
    """N ... C to N C ...."""
    return np.moveaxis(array, -1, 1)


def input_to_flax(array: NDArray) -> NDArray:
    """A model's input: arrays of rank 4 from NCHW to NHWC, others as they are."""
    return channels_last(array) if array.ndim == 4 else array


def of_input(reference: NDArray, flax: NDArray) -> Layout | None:
    """The layout of a model's input, which both sides were given: any order of the axes.

    Returns:
        One that the shapes allow where the values are others, too; None where they allow none.
    """
    likely = candidates(reference.shape, flax.shape, None)
    orders = itertools.permutations(range(reference.ndim)) if reference.ndim == flax.ndim else ()
    fits = [axes for axes in orders if tuple(reference.shape[axis] for axis in axes) == flax.shape]
    every = [*likely, *(Layout(axes=axes) for axes in fits)]
    same = (layout for layout in every if np.array_equal(layout.to_flax(reference), flax))
    return next(same, likely[0] if likely else None)


def without_padding(reference: NDArray, flax: tuple[int, ...], operations: Sequence[Sequence[Any]]) -> Layout | None:
    """The layout of a layer's input that the reference pads with zeros in the code before it, the candidate inside.

    Args:
        reference: the reference's values.
        flax: shape in the candidate.
        operations: those of the reference's code since the last layer: [name, plain arguments].

    Returns:
        None if the last of them isn't such a padding, or the shapes don't fit without it.
    """
    name, arguments = operations[-1] if operations else ("", [])
    if "constant_pad_nd" not in name or not arguments or any(arguments[1:2]):
        return None
    amounts = [int(amount) for amount in arguments[0]]
    if min(amounts, default=0) < 0:
        return None
    sides = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    padded = (*[(0, 0)] * (reference.ndim - len(sides)), *sides)
    inner = tuple(size - before - after for size, (before, after) in zip(reference.shape, padded, strict=True))
    fits = candidates(inner, flax, None)
    return replace(fits[0], padded=padded) if fits else None


def splits(parts: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether each axis of the shape `whole` is one axis of `parts`, or several in a row: (8, 6) is (8, 2, 3)."""
    if not parts or not whole:
        return parts == whole
    counts = range(1, len(parts) + 1)
    return any(math.prod(parts[:n]) == whole[0] and splits(parts[n:], whole[1:]) for n in counts)


def candidates(reference: tuple[int, ...], flax: tuple[int, ...], map_shape: tuple[int, ...] | None) -> list[Layout]:
    """Ways in which an array of shape `reference` in PyTorch may be the array of shape `flax`.

    Args:
        reference: shape in the reference.
        flax: shape in the candidate.
        map_shape: (C, H, W) of the map that the reference flattened into rows of this array, if it did.

    Returns:
        The likeliest first; empty if the shapes can't hold the same values.
    """
    found: list[Layout] = []
    if map_shape is not None and math.prod(reference) == math.prod(flax) and len(reference) == 2:
        unflattened = (reference[0], *map_shape[1:], map_shape[0])
        if flax in (reference, unflattened):
            found.append(Layout(map_shape=map_shape, shape=flax))
    if len(reference) >= 3 and flax == (reference[0], *reference[2:], reference[1]):
        found.append(Layout(moved=True))
    if flax == reference:
        found.append(Layout())
    if len(reference) == 2 and len(flax) == 4 and not found and math.prod(reference) == math.prod(flax):
        found.append(Layout(map_shape=(flax[3], flax[1], flax[2]), shape=flax))
    *kept, last = reference or (0,)
    if kept and len(flax) > len(reference) and list(flax[: len(kept)]) == kept and math.prod(flax[len(kept) :]) == last:
        found.append(Layout(last=flax[len(kept) :]))
    if not found and len(reference) == 4 and flax == (reference[0], reference[2], reference[1], reference[3]):
        found.append(Layout(axes=(0, 2, 1, 3)))  # heads before or behind time
    lead = len(reference) - len(flax)
    if not found and lead > 0 and set(reference[:lead]) == {1} and reference[lead:] == flax:
        found.append(Layout(lead=lead))
    if not found and _places_joined(reference, flax):
        found.append(Layout(joined=(reference, flax)))
    return found


def _places_joined(some: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether shapes differ by how a map's places lie between examples and channels: (N, H, W, C), (N, H * W, C)."""
    if min(len(some), len(others)) < 2 or some[0] != others[0] or some[-1] != others[-1]:
        return False
    few, many = sorted((some[1:-1], others[1:-1]), key=len)
    return splits(many, few) if few else math.prod(many) == 1


def align(reference: NDArray, flax: NDArray, map_shape: tuple[int, ...] | None) -> Layout | None:
    """The layout in which the candidate's array lies: by its shape, and by its values where shapes fit twice.

    Args:
        reference: the reference's values.
        flax: the candidate's.
        map_shape: (C, H, W) of the map that the reference flattened into rows of this array, if it did.

    Returns:
        None if the shapes can't hold the same values.
    """
    fits = candidates(reference.shape, flax.shape, map_shape)
    if len(fits) < 2:
        return fits[0] if fits else None
    differences = [difference(f.to_flax(reference), flax) for f in fits]
    # Where something isn't finite, the number of such places decides, then the rest.
    return fits[min(range(len(fits)), key=lambda i: _farness(differences[i]))]


def _farness(apart: NDArray) -> tuple[int, float]:
    infinite = np.isinf(apart)
    return int(infinite.sum()), float(np.max(apart, initial=0.0, where=~infinite))
