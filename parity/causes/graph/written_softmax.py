"""Softmax, and functions of one value, that are written out in other operations, as the one operation that each is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A node by its place: the name of its operation and its arguments.
Lookup = Callable[[int], tuple[str, Any]]

_CASTS = ("_to_copy", "clone", "detach", "alias", "contiguous")


def recognised(op: str, args: Any, lookup: Lookup) -> tuple[str, Any]:
    """A node as it is, or as `_softmax`, `softsign` or `tanhshrink` where it is the last operation of one.

    These are exp(z) / sum(exp(z)) over one axis, with z = x - max(x) over it or x itself, exp(z - logsumexp(z)) and
    exp(log_softmax(x)); x / (1 + |x|) and x - tanh(x), which PyTorch's own functions are taken apart into.

    Args:
        op: name of the node's operation.
        args: its arguments.
        lookup: gives the nodes before it.
    """
    found = None
    if (x := _of_one_value(op, args, lookup)) is not None:
        return ("softsign" if op == "div" else "tanhshrink"), {"self": {"node": x}}
    if op == "div":
        found = _quotient(args, lookup)
    elif op == "exp":
        found = _power(args, lookup)
    return (op, args) if found is None else ("_softmax", {"self": {"node": found[0]}, "dim": found[1]})


def _of_one_value(op: str, args: Any, lookup: Lookup) -> int | None:
    """What a softsign or a tanhshrink is taken of; None where a node is neither."""
    if op not in ("div", "sub") or args.get("rounding_mode") is not None or args.get("alpha") not in (None, 1):
        return None
    start, other = _place(args, "self", lookup), _place(args, "other", lookup)
    if start is None or other is None:
        return None
    name, inner = lookup(other)
    if op == "div" and name == "add" and inner.get("other") == 1 and inner.get("alpha") in (None, 1):
        size = _place(inner, "self", lookup)
        name, inner = lookup(size) if size is not None else ("", {})
    elif op == "div":
        return None
    return start if name == ("abs" if op == "div" else "tanh") and _place(inner, "self", lookup) == start else None


def _quotient(args: Any, lookup: Lookup) -> tuple[int, int] | None:
    powers, whole = _place(args, "self", lookup), _place(args, "other", lookup)
    if powers is None or whole is None or lookup(powers)[0] != "exp":
        return None
    name, of_sum = lookup(whole)
    axis = _axis(of_sum)
    start = _place(lookup(powers)[1], "self", lookup)
    if name != "sum" or axis is None or start is None or _place(of_sum, "self", lookup) != powers:
        return None
    return _unshifted(start, axis, lookup), axis


def _power(args: Any, lookup: Lookup) -> tuple[int, int] | None:
    start = _place(args, "self", lookup)
    if start is None:
        return None
    name, inner = lookup(start)
    if name == "_log_softmax" and (x := _place(inner, "self", lookup)) is not None:
        return x, int(inner["dim"])
    if name == "sub" and inner.get("alpha") in (None, 1):
        x, whole = _place(inner, "self", lookup), _place(inner, "other", lookup)
        if x is not None and whole is not None and lookup(whole)[0] == "logsumexp":
            axis = _axis(lookup(whole)[1])
            if axis is not None and _place(lookup(whole)[1], "self", lookup) == x:
                return x, axis
    return None


def _unshifted(start: int, axis: int, lookup: Lookup) -> int:
    """What the largest value was taken off from, if one was."""
    name, args = lookup(start)
    x, largest = (_place(args, each, lookup) for each in ("self", "other")) if name == "sub" else (None, None)
    if x is None or largest is None:
        return start
    kind, of_largest = lookup(largest)
    if kind == "item" and of_largest.get("index") == 0:  # of max, which gives places, too
        place = _place(of_largest, "self", lookup)
        kind, of_largest = lookup(place) if place is not None else ("", {})
    same = kind in ("max", "amax") and _place(of_largest, "self", lookup) == x and _axis(of_largest) == axis
    return x if same else start


def _axis(args: Any) -> int | None:
    """The one axis of a reduction that keeps it."""
    axes = args.get("dim")
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    return int(axes[0]) if len(axes) == 1 and isinstance(axes[0], int) and args.get("keepdim") else None


def _place(args: Any, name: str, lookup: Lookup) -> int | None:
    """The node that an argument is, casts and copies looked through."""
    value = args.get(name)
    while isinstance(value, dict) and "node" in value:
        op, inner = lookup(value["node"])
        if op not in _CASTS or not isinstance(inner.get("self"), dict):
            return value["node"]
        value = inner["self"]
    return None
