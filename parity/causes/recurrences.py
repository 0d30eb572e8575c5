"""Mistakes in states that are carried from step to step, in sums over the targets of edges, and in indices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, run

_INDEXED = ("index", "index_select", "gather", "embedding", "index_add", "scatter_add", "index_put")
_LONGEST_STEP = 4  # operations from one state to the next


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each of them."""
    yield from _states(problem)
    yield from _scattered(problem)


def _states(problem: Problem) -> Iterator[Attempt]:
    """What is made of a state is made of the one before it, or the state isn't carried on."""
    region = problem.region
    for chain in _chains(region):
        inside = set(chain)
        changes = {}
        for before, state in itertools.pairwise(chain):
            for user in region.users(state):
                if not _leads(region, user, inside - {state}):
                    changes[user] = _with(region, user, state, before)
        if changes:
            text = f"{problem.words(chain[-1])}: what a step gives is made of the state before it, not behind it"
            yield Attempt("state_before", text, changes)
        stale = {}
        for before, state in itertools.pairwise(chain[1:]):
            for user in _between(region, before, state):
                stale[user] = _with(region, user, before, chain[0])
        if stale:
            text = f"{problem.words(chain[-1])}: each step begins at the first state, not at the one before it"
            yield Attempt("state_not_carried", text, stale)


def _with(region: Region, user: int, own: int, other: int) -> Callable[[Get], NDArray]:
    node = region.node(user)
    return lambda get: run(node, lambda p: get(other) if p == own else get(p))


def _chains(region: Region) -> list[list[int]]:
    """Sums of which each follows from the one before it by the same few operations; what they begin at comes first."""
    ways: dict[int, tuple[int, tuple[str, ...]]] = {}
    for place in region.operations:
        if region.node(place).op in ("add", "lerp", "where", "tanh") and region.of_data(place):
            way = _way(region, place)
            if way is not None:
                ways[place] = way
    chains, inner = [], {before for before, _ in ways.values()}
    for last in (p for p in ways if p not in inner):
        chain, steps = [last], ways[last][1]
        while chain[0] in ways and (ways[chain[0]][1] == steps or _is_zero(region, ways[chain[0]][0])):
            chain.insert(0, ways[chain[0]][0])
        if len(chain) > 3:
            chains.append(chain)
    return chains


def _way(region: Region, place: int) -> tuple[int, tuple[str, ...]] | None:
    """The nearest node of the same operation and shape that leads to one, or zeros; and the operations on the way."""
    own, shape = region.node(place).op, region.shape(place)
    waiting = [(p, ()) for p in region.node(place).parents]
    for _ in range(_LONGEST_STEP):
        further = []
        for p, steps in waiting:
            same = region.shape(p) == shape
            if same and (region.node(p).op == own or _is_zero(region, p)):
                return p, steps
            further += [(q, (*steps, region.node(p).op)) for q in region.node(p).parents if p not in region.cut]
        waiting = further
    return None


def _is_zero(region: Region, place: int) -> bool:
    return not np.any(region.value(place))


def _leads(region: Region, user: int, states: set[int]) -> bool:
    """Whether a node is on the way to another state."""
    waiting, steps = [user], 0
    while waiting and steps <= _LONGEST_STEP:
        if states & set(waiting):
            return True
        waiting, steps = [u for p in waiting for u in region.users(p)], steps + 1
    return False


def _between(region: Region, before: int, state: int) -> list[int]:
    """The users of a state that lead to the next one."""
    return [user for user in region.users(before) if user == state or _leads(region, user, {state})]


_SCATTERS: dict[str, Callable] = {"max": np.maximum, "min": np.minimum, "product": np.multiply}


def _scattered(problem: Problem) -> Iterator[Attempt]:
    """The largest of what an index gathers, or the mean, in the place of the sum."""
    region = problem.region
    for place in region.operations:
        node = region.node(place)
        start, index, source = (node.argument(name) for name in ("self", "index", "source"))
        if node.op != "index_add" or start is None or index is None or source is None:
            continue
        yield from _other_sums(region, place, (start, index, source))


def _other_sums(region: Region, place: int, taken: tuple[int, int, int]) -> Iterator[Attempt]:
    node, (start, index, source) = region.node(place), taken
    axis = int(node.args.get("dim", 0))
    for name, function in _SCATTERS.items():

        def other(get: Get, function: Callable = function) -> NDArray:
            return _gathered(get(start), get(index), get(source), axis, function)

        text = f"the {name} of what belongs to a place is taken, not the sum"
        yield Attempt("segment_" + name, text, {place: other})

    def averaged(get: Get) -> NDArray:
        counts = np.maximum(np.bincount(get(index), minlength=get(start).shape[axis]), 1)
        shape = [1] * get(start).ndim
        shape[axis] = -1
        return run(node, get) / counts.reshape(shape)

    def summed(get: Get) -> NDArray:
        whole = np.sum(get(source), axis=axis, keepdims=True)
        return np.broadcast_to(whole, get(start).shape) + get(start)

    yield Attempt("segment_all", "the sum of everything is taken, not of what belongs to a place", {place: summed})
    yield Attempt("segment_mean", "the mean of what belongs to a place is taken, not the sum", {place: averaged})


def _gathered(start: NDArray, index: NDArray, source: NDArray, axis: int, function: Callable) -> NDArray:
    rest = {np.maximum: -np.inf, np.minimum: np.inf}.get(function, 1.0)
    made = np.moveaxis(np.full(start.shape, rest), axis, 0)
    function.at(made, index, np.moveaxis(source, axis, 0))  # type: ignore[attr-defined]
    return np.moveaxis(made, 0, axis)


def indices(problem: Problem) -> Iterator[Attempt]:
    """Other indices that are about, as the sources of edges for their targets: of one operation, or of all."""
    region = problem.region
    users = [p for p in region.operations if region.node(p).op in _INDEXED]
    indices = {
        p: values
        for user in users
        for p in region.node(user).parents
        if isinstance(values := region.value(p), np.ndarray) and np.issubdtype(values.dtype, np.integer)
    }
    for user in users:
        for own in [p for p in dict.fromkeys(region.node(user).parents) if p in indices]:
            for other, values in indices.items():
                if other < user and values.shape == indices[own].shape and not np.array_equal(values, indices[own]):
                    text = f"{problem.words(other)}, other indices, stand for {problem.words(own)}"
                    yield Attempt("other_indices", text, {user: _with(region, user, own, other)})
