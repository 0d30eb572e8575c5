"""One operation of the code between layers, and how it is run again in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations import OPERATIONS, CannotRun

# Where a graph begins: what a layer gave, an input of the model, a parameter, a constant; or what can't be told.
LAYER, GIVEN, PARAMETER, CONSTANT, UNKNOWN = "layer output", "model input", "parameter", "constant", "unknown"
SOURCES = frozenset({LAYER, GIVEN, PARAMETER, CONSTANT, UNKNOWN})
# One of several results; an array of which a part was overwritten.
ITEM, ASSIGN = "item", "assign"
# Operations that give a part of an array, or all of it in another shape, without copying.
VIEWS = frozenset(
    {"slice", "select", "unsqueeze", "squeeze", "transpose", "permute", "t", "alias", "detach", "unflatten"}
)
# That move, select or repeat values, and do nothing else.
MOVES = VIEWS | {ITEM, "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "clone", "contiguous", "_to_copy"}
MOVES |= {
    "copy",
    "flip",
    "roll",
    "unbind",
    "split",
    "split_with_sizes",
    "chunk",
    "narrow",
    "movedim",
    "repeat",
    "index",
}
MOVES |= {"repeat_interleave", "view_as_complex", "view_as_real", "lift_fresh", "flatten", "squeeze_copy", "view_copy"}
MOVES |= {"index", "index_select"}

Get = Callable[[int], NDArray]
Changes = Mapping[int, Callable[[Get], NDArray]]


@dataclass(frozen=True)
class Node:
    """One operation: its name, its arguments by their names, of which {"node": place} are other nodes; a line."""

    op: str
    args: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None

    @cached_property
    def parents(self) -> list[int]:
        """The nodes that it takes, in order."""
        return list(_places(self.args))

    def argument(self, name: str) -> int | None:
        """The node that is the argument of this name, if one is."""
        value = self.args.get(name)
        return value["node"] if isinstance(value, dict) and "node" in value else None


def run(node: Node, get: Callable[[int], Any], **other: Any) -> Any:
    """What an operation gives; `other` are arguments in the place of its own."""
    args = {name: _filled(value, get) for name, value in node.args.items() if name != "path"} | other
    if node.op == ITEM:
        return args["self"][args["index"]]
    if node.op == ASSIGN:
        return _assigned(args["self"], args["value"], node.args["path"])
    if node.op not in OPERATIONS:
        raise CannotRun(node.op)
    try:
        with np.errstate(all="ignore"):
            return OPERATIONS[node.op](args)
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise CannotRun(f"{node.op}: {error}") from error


def _assigned(whole: NDArray, value: NDArray, path: list[dict[str, Any]]) -> NDArray:
    copy = np.array(whole)
    part = copy
    for each in path:
        part = OPERATIONS[each["op"]]({**each["args"], "self": part})
    part[...] = value
    return copy


def _filled(value: Any, get: Callable[[int], Any]) -> Any:
    if isinstance(value, dict) and "node" in value:
        return get(value["node"])
    return [_filled(each, get) for each in value] if isinstance(value, list) else value


def _places(value: Any) -> Iterator[int]:
    if isinstance(value, dict) and "node" in value:
        yield value["node"]
    elif isinstance(value, dict):
        for name, each in value.items():
            if name != "path":
                yield from _places(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _places(each)


def renamed(value: Any, moved: list[int]) -> Any:
    """An operation's arguments with the nodes in them called by other places, given by the present ones."""
    if isinstance(value, dict) and "node" in value:
        return {"node": moved[value["node"]]}
    if isinstance(value, dict):
        return {name: each if name == "path" else renamed(each, moved) for name, each in value.items()}
    return [renamed(each, moved) for each in value] if isinstance(value, list) else value
