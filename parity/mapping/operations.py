"""What may happen to a tensor on its way from PyTorch to JAX: a closed list of moves of values, written as plain data.

| in the file | what it does |
| --- | --- |
| `{"split": {"axis": 0, "start": 8, "stop": 16}}` | a part of a tensor that holds several |
| `{"reshape": [8, 3, 5, 5]}` | joins or divides axes, in row order |
| `{"flip": [2, 3]}` | reverses these axes |
| `{"transpose": [1, 0]}` | puts the axes into this order |
| `{"pad": {"axis": 1, "before": 8, "after": 0}}` | zeros around it, where further tensors lie that are added |

Parts are taken first and zeros added last, but for a `reshape` into blocks before the one and behind the other. Each of
them can be undone; a part is undone by writing it into its place. NumPy alone is used, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Operation(Protocol):
    """One move of all of a tensor's values."""

    def shape(self, before: Shape) -> Shape:
        """What becomes of a shape.

        Raises:
            ValueError: it can't be applied to an array of this shape, in words.
        """
        ...

    def apply(self, array: NDArray) -> NDArray:
        """The moved values: a view where strides can do it."""
        ...

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """The inverse; `before` is the shape that there was."""
        ...

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        ...


@dataclass(frozen=True)
class Transpose:
    """The axes in this order."""

    axes: Shape

    def shape(self, before: Shape) -> Shape:
        """See `Operation`."""
        if sorted(self.axes) != list(range(len(before))):
            raise ValueError(f"transpose {list(self.axes)} isn't an order of the {len(before)} axes of {before}")
        return tuple(before[axis] for axis in self.axes)

    def apply(self, array: NDArray) -> NDArray:
        """See `Operation`."""
        return array.transpose(self.axes)

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """See `Operation`."""
        return array.transpose(np.argsort(self.axes))

    def to_json(self) -> dict[str, Any]:
        """See `Operation`."""
        return {"transpose": list(self.axes)}


@dataclass(frozen=True)
class Reshape:
    """The same values in row order, in another shape."""

    to: Shape

    def shape(self, before: Shape) -> Shape:
        """See `Operation`."""
        if math.prod(self.to) != math.prod(before):
            raise ValueError(f"reshape {list(self.to)} holds {math.prod(self.to)} values, not {math.prod(before)}")
        return self.to

    def apply(self, array: NDArray) -> NDArray:
        """See `Operation`."""
        return array.reshape(self.to)

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """See `Operation`."""
        return array.reshape(before)

    def to_json(self) -> dict[str, Any]:
        """See `Operation`."""
        return {"reshape": list(self.to)}


@dataclass(frozen=True)
class Flip:
    """These axes from behind."""

    axes: Shape

    def shape(self, before: Shape) -> Shape:
        """See `Operation`."""
        if not self.axes or len({*self.axes}) < len(self.axes) or max(self.axes) >= len(before):
            raise ValueError(f"flip {list(self.axes)} doesn't name some of the {len(before)} axes of {before}")
        return before

    def apply(self, array: NDArray) -> NDArray:
        """See `Operation`."""
        return np.flip(array, self.axes)

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """See `Operation`."""
        return np.flip(array, self.axes)

    def to_json(self) -> dict[str, Any]:
        """See `Operation`."""
        return {"flip": list(self.axes)}


@dataclass(frozen=True)
class Split:
    """A part of a tensor, from `start` up to `stop` along one axis."""

    axis: int
    start: int
    stop: int

    def shape(self, before: Shape) -> Shape:
        """See `Operation`."""
        size = before[self.axis] if self.axis < len(before) else 0
        if not self.start < self.stop <= size:
            raise ValueError(f"split of axis {self.axis} from {self.start} to {self.stop} isn't in the shape {before}")
        return (*before[: self.axis], self.stop - self.start, *before[self.axis + 1 :])

    def apply(self, array: NDArray) -> NDArray:
        """See `Operation`."""
        return array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """See `Operation`: zeros around the part."""
        whole = np.zeros(before, array.dtype)
        self.apply(whole)[...] = array
        return whole

    def to_json(self) -> dict[str, Any]:
        """See `Operation`."""
        return {"split": {"axis": self.axis, "start": self.start, "stop": self.stop}}


@dataclass(frozen=True)
class Pad:
    """Zeros before and behind, along one axis."""

    axis: int
    before: int
    after: int

    def shape(self, before: Shape) -> Shape:
        """See `Operation`."""
        if self.axis >= len(before):
            raise ValueError(f"pad of axis {self.axis}: {before} has {len(before)} axes")
        size = before[self.axis] + self.before + self.after
        return (*before[: self.axis], size, *before[self.axis + 1 :])

    def apply(self, array: NDArray) -> NDArray:
        """See `Operation`."""
        return self._taken(array.shape).undo(array, self.shape(array.shape))

    def undo(self, array: NDArray, before: Shape) -> NDArray:
        """See `Operation`."""
        return self._taken(before).apply(array)

    def _taken(self, before: Shape) -> Split:
        """What takes the array out of its zeros again."""
        return Split(self.axis, self.before, self.before + before[self.axis])

    def to_json(self) -> dict[str, Any]:
        """See `Operation`."""
        return {"pad": {"axis": self.axis, "before": self.before, "after": self.after}}


def read(content: Any) -> Operation:
    """An operation from what a file holds.

    Raises:
        ValueError: it is none of the list, or its numbers are none.
    """
    if not isinstance(content, dict) or len(content) != 1:
        raise ValueError(f'{content!r} is no operation; one looks like {{"transpose": [1, 0]}}')
    ((name, given),) = content.items()
    if name in ("split", "pad"):
        names = ("axis", "start", "stop") if name == "split" else ("axis", "before", "after")
        if not isinstance(given, dict) or {*given} != {*names}:
            looks = ", ".join(f'"{each}": {n}' for each, n in zip(names, (0, 8, 16), strict=True))
            raise ValueError(f"{name} {given!r} must look like {{{looks}}}")
        return (Split if name == "split" else Pad)(*numbers([given[each] for each in names], name))
    made = {"transpose": Transpose, "reshape": Reshape, "flip": Flip}.get(name)
    if made is None:
        raise ValueError(f"operation {name!r} isn't known; there are split, reshape, flip, transpose, pad and sum")
    return made(numbers(given, name))


def numbers(given: Any, name: str) -> Shape:
    """A list of whole numbers, none below zero.

    Raises:
        ValueError: it is anything else.
    """
    whole = isinstance(given, list) and all(type(n) is int and n >= 0 for n in given)
    if not whole:
        raise ValueError(f"{name} {given!r} isn't a list of whole numbers, none below zero")
    return tuple(given)


def apply(operations: Iterable[Operation], array: NDArray) -> NDArray:
    """One after the other."""
    for operation in operations:
        array = operation.apply(array)
    return array


def shapes(operations: Iterable[Operation], shape: Shape) -> list[Shape]:
    """The shapes before each operation, and at the end.

    Raises:
        ValueError: see `Operation.shape`; or a part is taken of what was moved before.
    """
    operations, found = [*operations], [shape]
    if any(isinstance(operation, Split) for operation in operations[len(taken(operations)) :]):
        raise ValueError("split must come before all else, but for one reshape")
    for operation in operations:
        found.append(operation.shape(found[-1]))
    return found


def taken(operations: Sequence[Operation]) -> Sequence[Operation]:
    """The operations at the beginning that take a part of a tensor, of which NumPy's views can do all."""
    first = 1 if len(operations) > 1 and isinstance(operations[0], Reshape) and isinstance(operations[1], Split) else 0
    end = first
    while end < len(operations) and isinstance(operations[end], Split):
        end += 1
    return operations[:end]
