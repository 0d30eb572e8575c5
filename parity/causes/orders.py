"""Mistakes in how values are moved: axes, orders of what is joined or taken apart, mirrored or rolled places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.causes import concatenations
from parity.causes.attempts import Attempt, Problem, each_and_all, value
from parity.causes.graph import Region
from parity.causes.graph_nodes import Get, run
from parity.causes.node_kinds import GIVEN, ITEM, LAYER, MOVES

Change = Callable[[Get], NDArray]

_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
_TURNS = ("permute", "transpose", "t")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each move, likely ones first."""
    region = problem.region
    yield from each_and_all(_repeats(region))
    yield from each_and_all(_reshapes(region))
    yield from each_and_all(_turns(region))
    yield from _tables(problem)  # of sines and cosines, which are joined, too
    yield from concatenations.attempts(problem)
    yield from _parts(problem)
    yield from _other_parts(problem)
    yield from _sources(problem)
    yield from _mirrored(problem)


def _moved(region: Region, ops: Sequence[str]) -> Iterator[tuple[int, NDArray, NDArray]]:
    """Nodes of these operations that move data, with what they take and give."""
    for place in region.operations:
        node = region.node(place)
        start = node.argument("self")
        if node.op in ops and start is not None and region.of_data(place):
            x, y = region.value(start), region.value(place)
            if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
                yield place, x, y


def _repeats(region: Region) -> Iterator[Attempt]:
    for place, x, y in _moved(region, ("repeat_interleave", "repeat", "_as_many_heads")):
        node = region.node(place)
        if node.op == "repeat":
            counts = node.args["repeats"]
            if x.ndim == len(counts) and sum(c > 1 for c in counts) == 1:
                axis = next(i for i, c in enumerate(counts) if c > 1)
                text = "values are repeated each several times in a row, not as a whole (tile)"
                yield Attempt("repeat_order", text, {place: value(np.repeat(x, counts[axis], axis))})
            continue
        axis = -3 if node.op == "_as_many_heads" else node.args.get("dim")
        if axis is not None and isinstance(node.args.get("repeats", 1), int) and x.shape[axis] > 1:
            counts = [1] * x.ndim
            counts[axis] = y.shape[axis] // x.shape[axis]
            text = "values are repeated as a whole (tile), not each several times in a row"
            yield Attempt("repeat_order", text, {place: value(np.tile(x, counts))})


def _reshapes(region: Region) -> Iterator[Attempt]:
    """Axes that are joined, or that one is taken apart into, in another order."""
    for place, x, y in _moved(region, _RESHAPES):
        for first, last, _ in _groups(x.shape, y.shape):  # x's axes first..last become one of y's
            for order in _orders(last - first):
                axes = [*range(first), *(first + i for i in order), *range(last, x.ndim)]
                text = f"{last - first} axes are joined in the order {list(order)}"
                yield Attempt("joined_order", text, {place: _joining(region, place, axes, y.shape)})
        for first, last, axis in _groups(y.shape, x.shape):  # x's axis becomes y's axes first..last
            sizes = y.shape[first:last]
            for order in _orders(last - first):
                shape = [*x.shape[:axis], *(sizes[i] for i in order), *x.shape[axis + 1 :]]
                back = [axis + order.index(i) for i in range(len(order))]
                axes = [*range(axis), *back, *range(axis + len(order), len(shape))]
                text = f"an axis is taken apart with its {len(order)} parts in the order {list(order)}"
                text += f", as {[sizes[i] for i in order]} (interleaved), not {list(sizes)}" if len(order) == 2 else ""
                yield Attempt("split_order", text, {place: _splitting(region, place, shape, axes, y.shape)})
        yield from _split_anew(region, place, x, y)


def _split_anew(region: Region, place: int, x: NDArray, y: NDArray) -> Iterator[Attempt]:
    """An axis of which a part joins the axes before it, and a part those behind, taken apart in another order."""
    ends = {int(np.prod(shape[:i])) for shape in (x.shape, y.shape) for i in range(len(shape) + 1)}
    edges = sorted(ends)
    if not x.size or any(after % before for before, after in itertools.pairwise(edges)):
        return
    sizes = [after // before for before, after in itertools.pairwise(edges)]  # of the finest axes of both
    axis, begun = 0, 1
    groups: list[list[int]] = [[] for _ in x.shape]
    for i, size in enumerate(sizes):
        while begun == int(np.prod(x.shape[: axis + 1])):
            axis += 1
        groups[axis].append(i)
        begun *= size
    for own, group in enumerate(groups):
        for order in _orders(len(group)) if 1 < len(group) < 4 else ():
            moved = [group[0] + i for i in order]
            shape = [sizes[j] for j in (*range(group[0]), *moved, *range(group[-1] + 1, len(sizes)))]
            back = [*range(group[0]), *(group[0] + order.index(i) for i in range(len(group)))]
            axes = [*back, *range(group[-1] + 1, len(sizes))]
            text = f"axis {own} of {list(x.shape)} is taken apart with its parts in the order {list(order)}"
            yield Attempt("split_order", text, {place: _splitting(region, place, shape, axes, y.shape)})


def _joining(region: Region, place: int, axes: list[int], shape: tuple[int, ...]) -> Change:
    start = region.node(place).parents[0]
    return lambda get: np.transpose(get(start), axes).reshape(shape)


def _splitting(region: Region, place: int, shape: list[int], axes: list[int], end: tuple[int, ...]) -> Change:
    start = region.node(place).parents[0]
    return lambda get: np.transpose(get(start).reshape(shape), axes).reshape(end)


def _groups(many: tuple[int, ...], few: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Where several axes of one shape are one axis of another: first and last of the former, the latter."""
    i = 0
    for axis, size in enumerate(few):
        j, product = i, 1
        while j < len(many) and product < size:
            product *= many[j]
            j += 1
        if product != size:
            return
        if size == 1:
            j = i + 1 if i < len(many) and many[i] == 1 else i
        if sum(s > 1 for s in many[i:j]) > 1 and j - i <= 5:
            yield i, j, axis
        i = j


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    return (o for o in itertools.permutations(range(count)) if o != tuple(range(count)))


def _turns(region: Region) -> Iterator[Attempt]:
    """Axes that aren't exchanged, or others."""
    for place, x, y in _moved(region, _TURNS):
        if x.size == y.size and x.ndim > 1:
            text = f"axes of {list(x.shape)} aren't moved to {list(y.shape)}: values are only reshaped"
            yield Attempt("axes_not_moved", text, {place: value(x.reshape(y.shape))})
        if x.ndim <= 4:
            for order in itertools.permutations(range(x.ndim)):
                made = np.transpose(x, order)
                if math.prod(made.shape) == y.size:
                    text = f"axes of {list(x.shape)} are moved in the order {list(order)}"
                    yield Attempt("axes_order", text, {place: value(made.reshape(y.shape))})


def _tables(problem: Problem) -> Iterator[Attempt]:
    """Tables that are added or multiplied, such as positions in sines and cosines: in turn, or one behind the other."""
    region = problem.region
    places = {
        p
        for user in region.operations
        if region.node(user).op in ("add", "mul") and region.of_data(user)
        for p in region.node(user).parents
        if not region.of_data(p)
    }
    for place in sorted(places):
        x = region.value(place)
        if not isinstance(x, np.ndarray) or x.ndim < 2 or x.shape[-1] % 2 or not np.issubdtype(x.dtype, np.floating):
            continue
        ran = {region.node(p).op for p in region.graph.before(place, region.cut)}
        one, two = ("sines", "cosines") if ran & {"sin", "cos"} else ("the first half", "the second")
        words = "positions" if ran & {"sin", "cos"} else problem.words(place)
        if _of_both(region, place):
            one, two = "the first directions", "the second (their order)"
        half = (*x.shape[:-1], 2, x.shape[-1] // 2)
        pair = (*x.shape[:-1], x.shape[-1] // 2, 2)
        apart, in_turn = (np.swapaxes(x.reshape(s), -1, -2).reshape(x.shape) for s in (pair, half))
        for key, text, made in (
            ("halves_for_pairs", f"{one} and {two} stand one behind the other, not in turn", apart),
            ("pairs_for_halves", f"{one} and {two} stand in turn, not one behind the other", in_turn),
            ("pairs_exchanged", f"{one} and {two} are exchanged", x.reshape(pair)[..., ::-1].reshape(x.shape)),
            ("halves_exchanged", f"{one} and {two} are exchanged", x.reshape(half)[..., ::-1, :].reshape(x.shape)),
        ):
            yield Attempt(key, f"{words}: {text}", {place: value(made)})


def _of_both(region: Region, place: int) -> bool:
    """Whether a table is joined of several that hold sines and cosines each, as of rows and columns."""
    while region.node(place).op in MOVES and region.node(place).parents:
        place = region.node(place).parents[0]
    parts = region.node(place).parents if region.node(place).op == "cat" else []
    ran = [{region.node(p).op for p in region.graph.before(part, region.cut)} for part in parts]
    return len(parts) > 1 and all(ops >= {"sin", "cos"} for ops in ran)


def _parts(problem: Problem) -> Iterator[Attempt]:
    """The parts of an array that was split, exchanged; or split interleaved."""
    region = problem.region
    groups: dict[int, list[int]] = {}
    for place in region.operations:
        node = region.node(place)
        start = node.argument("self")
        if start is None or node.op not in (ITEM, "select", "slice"):
            continue
        if region.of_data(place) or region.node(start).op == GIVEN:
            groups.setdefault(start, []).append(place)
    for start, places in ((start, alike) for start, all_ in groups.items() for alike in _of_a_shape(region, all_)):
        values = [region.value(p) for p in places]
        which = "" if len(places) == len(groups[start]) else f" of shape {list(values[0].shape)}"
        for order in _orders(len(places)) if len(places) < 5 else ():
            text = f"the parts{which} of {problem.words(start)} are taken in the order {list(order)}"
            yield Attempt("parts_order", text, {p: value(values[i]) for p, i in zip(places, order, strict=True)})
        joined = values[0].ndim > 0 and values[0].shape[-1] > 1  # along the last axis
        if joined and len({region.node(p).op for p in places} & {"slice", ITEM}) == 1:
            whole = np.concatenate(values, -1)
            made = [whole[..., i :: len(values)] for i in range(len(values))]
            text = f"the parts of {problem.words(start)} are taken interleaved, every {len(values)}th value"
            yield Attempt("parts_interleaved", text, {p: value(m) for p, m in zip(places, made, strict=True)})


def _of_a_shape(region: Region, places: list[int]) -> list[list[int]]:
    """Several, but not many, nodes of one shape each."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for place in places:
        shapes.setdefault(np.shape(region.value(place)), []).append(place)
    return [alike for alike in shapes.values() if 2 <= len(alike) <= 6]


def _other_parts(problem: Problem) -> Iterator[Attempt]:
    """Another part of an array that was split, in the place of one."""
    region = problem.region
    for place in region.operations:
        node, start = region.node(place), region.node(place).argument("self")
        if start is None or node.op != "slice" or not region.of_data(place):
            continue
        parts = [p for p in region.graph.users.get(start, ()) if region.graph.nodes[p].op == node.op]
        shape = region.shape(place)
        for other in (p for p in parts if p != place):
            made = run(region.graph.nodes[other], region.value)
            if isinstance(made, np.ndarray) and made.shape == shape:
                text = f"part {parts.index(other)} of {problem.words(start)} is taken, not part {parts.index(place)}"
                yield Attempt("part_other", text, {place: value(made)})


def _sources(problem: Problem) -> Iterator[Attempt]:
    """What two layers gave, exchanged."""
    region = problem.region
    layers = [p for p in region.places if region.node(p).op == LAYER and region.of_data(p)]
    arrays = {p: region.value(p) for p in layers if isinstance(region.value(p), np.ndarray)}
    for one, two in itertools.combinations(list(arrays)[-8:], 2):
        if arrays[one].shape == arrays[two].shape and arrays[one].dtype == arrays[two].dtype:
            text = f"{problem.words(one)} and {problem.words(two)} are exchanged"
            yield Attempt("exchanged", text, {one: value(arrays[two]), two: value(arrays[one])})


def _mirrored(problem: Problem) -> Iterator[Attempt]:
    """Places mirrored, exchanged or moved by one along some axis, of what is handed on and of what comes in."""
    region = problem.region
    places = [region.sink, *(p for p in region.places if region.node(p).op == LAYER or not region.of_data(p))]
    for place in dict.fromkeys(places):
        x = region.value(place)
        if not isinstance(x, np.ndarray) or x.ndim < 1 or x.size < 2:
            continue
        words = problem.words(place)
        for axis in range(x.ndim):
            if x.shape[axis] > 1:
                text = f"{words} is mirrored along axis {axis}"
                yield Attempt("mirrored", text, {place: value(np.flip(x, axis))}, True)
                for by in (1, -1):
                    text = f"{words} is rolled by {by} along axis {axis} of {list(x.shape)}"
                    yield Attempt("rolled", text, {place: value(np.roll(x, by, axis))}, True)
        for one, two in itertools.combinations(range(x.ndim), 2):
            if x.shape[one] == x.shape[two] > 1:
                text = f"axes {one} and {two} of {words} {list(x.shape)} are exchanged"
                yield Attempt("axes_order", text, {place: value(np.swapaxes(x, one, two))})
        if x.ndim >= 3 and x.shape[-1] != x.shape[-2]:
            made = np.swapaxes(x, -1, -2).reshape(x.shape)
            text = f"{words} is transposed, then reshaped to {list(x.shape)}"
            yield Attempt("axes_order", text, {place: value(made)})
            made = x.reshape(*x.shape[:-2], x.shape[-1], x.shape[-2]).swapaxes(-1, -2)
            yield Attempt("axes_order", f"{words} is reshaped to its transposed shape", {place: value(made)})
