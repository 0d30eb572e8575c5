"""One operation of the code between layers, and how it is run again in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.node_kinds import ASSIGN, ITEM
from parity.causes.numpy_operations.operations import OPERATIONS, CannotRun

_LEAST_COST = 1000

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


def cost(result: Any) -> int:
    """What computing something counts as, in elements: of few elements the operation costs more than they do."""
    return max(result.size, _LEAST_COST) if isinstance(result, np.ndarray) else _LEAST_COST


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
