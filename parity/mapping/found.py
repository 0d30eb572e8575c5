"""From what a comparison knows to the mapping: plain facts of both sides, which may come from two processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotConvert
from parity.kinds import parameter, registry, weights
from parity.kinds.layouts import Layout
from parity.kinds.leaf import Leaf
from parity.kinds.recurrence import PACKED
from parity.mapping import inference, trees
from parity.mapping.mapping import Mapping
from parity.mapping.operations import Operation, Pad, Reshape, Shape, Split
from parity.mapping.recurrent import Cell
from parity.mapping.tensors import Source, Tensor


@dataclass(frozen=True)
class TorchState:
    """What a PyTorch model's state dict holds.

    Attributes:
        model: name of the class.
        shapes: of each tensor, by name; of what is no tensor ().
        same: names of the same tensor, each group in the state dict's order.
        buffers: names of those that aren't trained.
        parts: tensors of the model that was compared, in which packed weights were taken apart, to their places in
            these: name, and from where to where along the first axis, None for all of it; of each block of so many, if
            that is said behind.
        transposed: likewise those that lie transposed in these.
        joined: likewise those that several of these were joined to: their names, and where their rows lie in it.
    """

    model: str
    shapes: dict[str, Shape]
    same: list[list[str]] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    parts: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    transposed: list[str] = field(default_factory=list)
    joined: dict[str, list[tuple[str, list[int]]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As another process can read it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TorchState:
        """The inverse of `to_json`."""
        shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
        parts = {name: tuple(part) for name, part in content["parts"].items()}
        read: dict[str, Any] = {"shapes": shapes, "parts": parts}
        return cls(**content | read)

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor of the model that was compared isn't trained."""
        whole, *_ = self.parts.get(name, (name,))
        return whole in self.buffers

    def sources(self, name: str, moved: NDArray, before: Shape) -> tuple[Source, ...]:
        """The tensors that one of the model that was compared is made of; none where no operations say how.

        Args:
            name: of the tensor.
            moved: the places of its values, as JAX has them.
            before: its shape.
        """
        pieces = self.joined.get(name)
        if pieces is None:
            operations = inference.moves(moved, before)
            source = None if operations is None else self.source(name, operations)
            return () if source is None else (source,)
        found = [self._piece(whole, rows, moved, before) for whole, rows in pieces]
        return tuple(each for each in found if each is not None) if None not in found else ()

    def _piece(self, name: str, rows: list[int], moved: NDArray, before: Shape) -> Source | None:
        """One of several tensors that were joined, with nothing around it where the others lie."""
        row, rest = np.divmod(moved, math.prod(before[1:]))
        inside = np.isin(row, rows)
        order = np.zeros(before[0], np.int64)
        order[rows] = np.arange(len(rows))
        for shape, axis in _divided(moved.shape):
            there = inside.reshape(shape)
            along = np.flatnonzero(there.any(tuple(a for a in range(there.ndim) if a != axis)))
            start, stop = int(along[0]), int(along[-1]) + 1
            cut = (slice(None),) * axis + (slice(start, stop),)
            if stop - start < shape[axis] and there[cut].all() and there.sum() == there[cut].size:
                part = order[row.reshape(shape)[cut]] * math.prod(before[1:]) + rest.reshape(shape)[cut]
                operations = inference.moves(part, self.shapes[name])
                end: list[Operation] = [Pad(axis, start, shape[axis] - stop)]
                end += [Reshape(moved.shape)] if shape != moved.shape else []
                return None if operations is None else Source(name, self.shapes[name], (*operations, *end))
        return None

    def places(self, name: str, shape: Shape) -> tuple[NDArray, Shape]:
        """The places of a tensor's values, as the model that was compared has them, and the state dict's shape."""
        if name in self.transposed:
            return inference.places(shape[::-1]).T, shape[::-1]
        whole, start, *_ = self.parts.get(name, (name, None, None))
        rest = self.shapes.get(whole, shape)[1:]
        if start is not None and rest != shape[1:] and math.prod(rest) == math.prod(shape[1:]):  # one pixel's kernel
            return inference.places((shape[0], *rest)).reshape(shape), (shape[0], *rest)
        return inference.places(shape), shape

    def source(self, name: str, operations: list[Operation]) -> Source | None:
        """A tensor of the model that was compared, as one of the state dict's; None if that has none."""
        whole, start, stop, *period = self.parts.get(name, (name, None, None))
        shape = self.shapes.get(whole)
        if shape is None:
            return None
        taken: list[Operation] = [] if start is None or stop is None else [Split(0, start, stop)]
        for block in period:
            blocks, rest, split = shape[0] // block, shape[1:], Split(1, start or 0, stop or block)
            taken = [Reshape((blocks, block, *rest)), split, Reshape((blocks * (split.stop - split.start), *rest))]
        return Source(whole, shape, (*taken, *operations))


@dataclass(frozen=True)
class Found:
    """What a comparison of two models of layers knows of their weights.

    Attributes:
        library: of the JAX model.
        model: name of its class.
        pairs: path of each of JAX's leaves to PyTorch's.
        leaves: PyTorch's, by path.
        state: PyTorch's.
        kinds: of JAX's leaves, by path.
        layouts: of their inputs.
        shapes: of JAX's variables, by collection, path and name joined with `/`.
        idle: of these those that JAX's model computes nothing with.
        cells: those of JAX's recurrent layers, by path of the layer, whose variables lie otherwise than in `shapes`.
    """

    library: str
    model: str
    pairs: dict[str, str]
    leaves: dict[str, Leaf]
    state: TorchState
    kinds: dict[str, str]
    layouts: dict[str, Layout | None]
    shapes: dict[str, Shape]
    idle: list[str] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As another process can read it."""
        leaves = {path: leaf.to_json() for path, leaf in self.leaves.items()}
        plain = {path: layout and dataclasses.asdict(layout) for path, layout in self.layouts.items()}
        cells = {path: cell.to_json() for path, cell in self.cells.items()}
        return vars(self) | {"cells": cells, "leaves": leaves, "state": self.state.to_json(), "layouts": plain}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Found:
        """The inverse of `to_json`."""
        read = {
            "leaves": {path: Leaf.from_json(leaf) for path, leaf in content["leaves"].items()},
            "state": TorchState.from_json(content["state"]),
            "layouts": {path: layout and _layout(layout) for path, layout in content["layouts"].items()},
            "shapes": {name: tuple(shape) for name, shape in content["shapes"].items()},
            "cells": {path: Cell(**cell) for path, cell in content["cells"].items()},
        }
        return cls(**content | read)

    def concluded(self, **comparison: str) -> Mapping:
        """The mapping that the comparison has used, with what became of it.

        Raises:
            CannotConvert: a tensor has no place in the other model, or another shape there; all of them are named.
        """
        made: dict[str, Tensor] = {}
        problems: list[str] = []
        for path, torch_path in self.pairs.items():
            if path in self.cells:
                self._add_cell(self.cells[path], torch_path, made, problems)
                continue
            for name, shape in self.leaves[torch_path].shapes.items():
                self._add(path, torch_path, name, tuple(shape), made, problems)
        packed = {"/".join(filter(None, ("params", path, name))) for path in self.cells for name in PACKED}
        for name in self.shapes:
            if (
                name not in made
                and name not in packed
                and name not in self.idle
                and name.partition("/")[0] in trees.COLLECTIONS
            ):
                problems.append(f"{self._shown(name)} {self.shapes[name]} of the JAX model comes from nothing")
        if problems:
            raise CannotConvert(trees.listed("the models' weights don't fit", problems, "see the comparison's report"))
        idle = tuple(self._shown(name) for name in self.idle if name not in made)
        return finished(self.library, self.model, self.pairs, tuple(made.values()), self.state, comparison, idle)

    def _add_cell(self, cell: Cell, torch_path: str, made: dict[str, Tensor], problems: list[str]) -> None:
        """All leaves of one cell, or what is wrong with them."""
        leaves, wrong = cell.leaves(torch_path, self.state.shapes)
        problems += wrong
        for leaf, sources in () if wrong else leaves.items():
            made[f"params/{leaf}"] = Tensor(self._shown(f"params/{leaf}"), cell.shape(leaf), tuple(sources))

    def _add(
        self, path: str, torch_path: str, name: str, shape: Shape, made: dict[str, Tensor], problems: list[str]
    ) -> None:
        """One tensor of one leaf, or what is wrong with it."""
        kind, owned = self.kinds[path], self.leaves[torch_path].kind == parameter.KIND.name
        weight = registry.named(kind).weight(name)
        shown = torch_path if owned else ".".join(filter(None, (torch_path, name)))
        leaf = "/".join(filter(None, (weight.collection, path, "" if owned else weight.flax)))
        wanted = self.shapes.get(leaf)
        if wanted is None:
            if not self.state.is_buffer(shown):
                problems.append(f"{shown} {shape} of the PyTorch model has no place in the JAX model")
            return
        places, before = self.state.places(shown, shape)
        moved = weights.to_flax(kind, name, places, self.layouts.get(path), {weight.flax: wanted})
        if owned and moved.size == inference.places(wanted).size:
            moved = moved.reshape(wanted)
        if moved.shape != wanted:
            problems.append(f"{shown} is {moved.shape} in JAX's layout, {self._shown(leaf)} is {wanted}")
            return
        sources = self.state.sources(shown, moved, before)
        if not sources:
            problems.append(f"{shown} isn't in the state dict, or moves as no operations say")
            return
        made[leaf] = Tensor(self._shown(leaf), wanted, sources)

    def _shown(self, name: str) -> str:
        """A variable's path as its library says it: nnx has no collections in them."""
        return name if self.library == trees.LINEN else name.partition("/")[2]


def finished(
    library: str,
    model: str,
    layers: dict[str, str],
    tensors: tuple[Tensor, ...],
    state: TorchState,
    comparison: dict[str, str],
    idle: tuple[str, ...] = (),
) -> Mapping:
    """A mapping with all that the state dict holds besides what is used."""
    used = {source.torch for tensor in tensors for source in tensor.sources}
    tied: dict[str, str] = {}
    for names in state.same:
        first = next((name for name in names if name in used), None)
        tied |= {name: first for name in names if first is not None and name != first}
    unused = tuple(name for name in state.shapes if name not in used and name not in tied)
    return Mapping(library, model, state.model, dict(layers), tensors, tied, unused, idle, comparison)


def _divided(shape: Shape) -> Iterator[tuple[Shape, int]]:
    """The shape, and with an axis in blocks: with each axis along which something may lie beside others."""
    yield from ((shape, axis) for axis in range(len(shape)))
    for axis, size in enumerate(shape):
        for blocks in (n for n in range(2, size // 2 + 1) if size % n == 0):
            yield (*shape[:axis], blocks, size // blocks, *shape[axis + 1 :]), axis + 1


def _layout(content: dict[str, Any]) -> Layout:
    read: dict[str, Any] = {key: _tuple(value) for key, value in content.items()}
    return Layout(**read)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(each) for each in value) if isinstance(value, list) else value
