"""Mistakes in which parameters an operation takes: one left out, taken twice or transposed, another layer's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem, value
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, run
from parity.causes.node_kinds import MOVES, PARAMETER

PRODUCTS = ("linear", "addmm", "convolution", "_convolution")
_NORMS = ("layer_norm", "native_layer_norm", "native_group_norm", "native_batch_norm", "batch_norm")
_NORMS += ("_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
_MOST = 300  # others that are tried


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes with the parameters of each operation, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        if node.op in PRODUCTS + _NORMS:
            yield from _biases(problem, place)
        if node.op in _NORMS:
            yield from _scales(problem, place)
        elif node.op == "linear":
            yield from _transposed(problem, place)


def _parameter(region: Region, place: int | None) -> int | None:
    """The parameter that a node is, or moves the values of; None if it isn't one."""
    while place is not None and region.node(place).op in MOVES and region.node(place).parents:
        place = region.node(place).parents[0]
    return place if place is not None and region.node(place).op == PARAMETER else None


def _biases(problem: Problem, place: int) -> Iterator[Attempt]:
    node = problem.region.node(place)
    name = "self" if node.op == "addmm" else "bias"
    bias = _parameter(problem.region, node.argument(name))
    if bias is None:
        return
    words, nothing = problem.words(bias), np.zeros(()) if name == "self" else None

    def twice(get: Get) -> Any:
        return _joined(run(node, get), run(node, get, **{name: nothing}))

    missing = {place: lambda get: run(node, get, **{name: nothing})}
    yield Attempt("bias_missing", f"{words} isn't added: there is no bias", missing)
    yield Attempt("bias_twice", f"{words} is added twice", {place: twice})


def _joined(whole: Any, without: Any) -> Any:
    """A result with its bias once more."""
    if isinstance(whole, list):
        return [2 * whole[0] - without[0], *whole[1:]]
    return 2 * whole - without


def _scales(problem: Problem, place: int) -> Iterator[Attempt]:
    node = problem.region.node(place)
    scale = _parameter(problem.region, node.argument("weight"))
    if scale is not None:
        words = problem.words(scale)
        missing = {place: lambda get: run(node, get, weight=None)}
        yield Attempt("scale_missing", f"{words} is left out: the norm has no scale", missing)
        more = {place: lambda get: run(node, get, weight=1 + get(node.args["weight"]["node"]))}
        yield Attempt("one_added", f"1 + {words} multiplies, not {words}", more)


def _transposed(problem: Problem, place: int) -> Iterator[Attempt]:
    node = problem.region.node(place)
    weight = node.argument("weight")
    found = _parameter(problem.region, weight)
    if weight is None or found is None:
        return
    shape = np.shape(problem.region.value(weight))
    if len(shape) == 2 and shape[0] == shape[1]:
        change = {place: lambda get: run(node, get, weight=get(weight).T)}
        yield Attempt("kernel_transposed", f"{problem.words(found)} is transposed", change)


def exchanged(problem: Problem) -> Iterator[Attempt]:
    """Parameters of another layer in the places of those of one, all of them or one by one."""
    region = problem.region
    known = _all(region)
    used = {known_name: p for p in region.places if (known_name := _name(region, p)) in known}
    for one, parts in _layers(used).items():
        for other, others in _layers(known).items():
            if one != other and parts.keys() == others.keys() and len(parts) > 1:
                values = {last: region.graph.source(others[last]) for last in parts}
                if all(np.shape(values[last]) == region.shape(p) for last, p in parts.items()):
                    changes = {p: value(values[last]) for last, p in parts.items()}
                    yield Attempt(
                        "other_layer", f"the parameters of {other} are used, in PyTorch those of {one}", changes
                    )
    yield from itertools.islice(_one_by_one(problem, used, known), _MOST)


def _one_by_one(problem: Problem, used: dict[str, int], known: dict[str, int]) -> Iterator[Attempt]:
    region = problem.region
    for (name, place), (other, there) in itertools.combinations(used.items(), 2):
        if region.shape(place) == region.shape(there):
            text = f"{name} and {other} are exchanged"
            changes = {place: value(region.value(there)), there: value(region.value(place))}
            yield Attempt("parameters_exchanged", text, changes)
    for name, place in used.items():
        for other, source in known.items():
            above, _, last = name.rpartition(".")
            akin = other.rpartition(".")[0] == above or other.rpartition(".")[2] == last
            if other == name or not akin:
                continue
            values: NDArray = region.graph.source(source)
            if values.shape == region.shape(place):
                yield Attempt("other_parameter", f"{other} is used, in PyTorch {name}", {place: value(values)})


def _name(region: Region, place: int) -> str:
    node = region.graph.nodes[place]
    return str(node.args.get("name", "")) if node.op == PARAMETER else ""


def _all(region: Region) -> dict[str, int]:
    """Every parameter that the model has used, by its name."""
    places = range(len(region.graph.nodes))
    return {name: place for place in reversed(places) if (name := _name(region, place))}


def _layers(names: dict[str, int]) -> dict[str, dict[str, int]]:
    """Parameters by the layer that owns them, then by their last name."""
    layers: dict[str, dict[str, int]] = {}
    for name, place in names.items():
        above, _, last = name.rpartition(".")
        layers.setdefault(above, {})[last] = place
    return layers
