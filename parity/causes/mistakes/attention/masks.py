"""Mistakes in attention's masks: missing, off by one, transposed, inverted, of other examples, of another value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.node_kinds import MOVES
from parity.causes.graph.nodes import Changes
from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.mistakes.attention.attention import MASKED, Attention, find, way
from parity.causes.numpy_operations.operations import CannotRun, softmax

_OUT = -1e30
_FAR = 1e12  # beside which scores are nothing: then all shares are alike, and nothing is rounded
_UNIT = 2.0**-53
_LEAST_NUMBER = -20.0  # of what is taken from scores and is no bias
_WIDTHS = 17  # of windows that are tried one by one


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in what each attention sees."""
    for a in find(problem.region):
        roundings = _roundings(problem, a)
        for attempt in _of(problem.region, a):
            yield attempt._replace(roundings=roundings)


def _roundings(problem: Problem, a: Attention) -> float:
    """What the scores' roundings may leave where a mask's number, such as -10,000, is added to all of a query's keys.

    The softmax takes the number away again, but not what it rounded off; in PyTorch shares with it are 0. Each share's
    relative error is then twice that of an exponent.
    """
    logits = np.abs(problem.region.value(a.logits))
    added = float(np.max(logits[np.isfinite(logits)], initial=0.0))
    if not -MASKED < added < _FAR:
        return 0.0
    return 4 * _UNIT * added * float(np.max(np.abs(problem.observed[np.isfinite(problem.observed)]), initial=0.0))


def _of(region: Region, a: Attention) -> Iterator[Attempt]:
    free = unmasked(region, a)
    if free is None:
        return
    axes = (a.query_axis, a.key_axis)
    logits = np.moveaxis(region.value(a.logits), axes, (-2, -1))
    free = np.moveaxis(free, axes, (-2, -1))
    seen = logits >= MASKED
    for key, text, other in _masks(seen):
        other = np.broadcast_to(other, seen.shape)
        for made in _ways(free, other):
            shares = softmax({"self": made, "dim": -1})
            yield Attempt(key, text, {a.shares: value(np.moveaxis(shares, (-2, -1), axes))})
    if seen.all():
        yield from _of_numbers(region, a)
        return
    whole = softmax({"self": free, "dim": -1})
    text = "what is masked is set to 0 behind the softmax, and the rest isn't made to add up to 1"
    yield Attempt("mask_after_softmax", text, {a.shares: value(np.moveaxis(whole * seen, (-2, -1), axes))})
    text = "scores that are masked are set to 0, not to minus infinity"
    for made in (np.where(seen, free, 0.0), free * seen):
        shares = softmax({"self": made, "dim": -1})
        yield Attempt("mask_value", text, {a.shares: value(np.moveaxis(shares, (-2, -1), axes))})
    yield from _values(a, free, seen)
    for cap in _caps(region, a):
        for made in _ways(free, seen):
            shares = softmax({"self": np.where(seen, free, np.clip(made, -cap, cap)), "dim": -1})
            text = f"the scores are masked before they are capped: what is masked has {-cap:g}, not minus infinity"
            yield Attempt("mask_value", text, {a.shares: value(np.moveaxis(shares, (-2, -1), axes))})


def _caps(region: Region, a: Attention) -> Iterator[float]:
    """The numbers by which scores are multiplied behind a tanh."""
    for one, two in itertools.pairwise(a.chain):
        number = region.node(two).args.get("other")
        if region.node(one).op == "tanh" and region.node(two).op == "mul" and isinstance(number, (int, float)):
            yield float(number)


def _of_numbers(region: Region, a: Attention) -> Iterator[Attempt]:
    """Mistakes in a mask that takes a number from the scores, -100 say, which isn't so much that nothing is left."""
    axes = (a.query_axis, a.key_axis)
    for place in a.chain:
        ways = way(region, a, place)
        added = None if ways is None else np.asarray(region.value(ways[1]))
        if ways is None or added is None or not np.issubdtype(added.dtype, np.floating):
            continue
        number = float(added.min(initial=0.0))
        free = _logits(region, a, {place: lambda get, kept=ways[0]: get(kept)})
        if free is None or not MASKED <= number <= _LEAST_NUMBER or not np.isin(added, (0.0, number)).all():
            continue
        seen = np.broadcast_to(added == 0, np.shape(region.value(place))).reshape(free.shape)
        free, seen = (np.moveaxis(each, axes, (-2, -1)) for each in (free, seen))
        for key, text, other in _masks(seen):
            shares = softmax({"self": free + np.where(other, 0.0, number), "dim": -1})
            yield Attempt(key, text, {a.shares: value(np.moveaxis(shares, (-2, -1), axes))})


def _values(a: Attention, free: NDArray, seen: NDArray) -> Iterator[Attempt]:
    axes = (a.query_axis, a.key_axis)
    for out in (1e-9, -1.0, -10.0, -100.0, -1e3, -1e4, -1e9, 1.0, 1e9):
        for made, what in ((np.where(seen, free, out), "replaced by"), (free + np.where(seen, 0, out), "added to")):
            shares = softmax({"self": made, "dim": -1})
            text = f"the scores of what is masked are {what} {out:g}, which isn't minus infinity"
            yield Attempt("mask_value", text, {a.shares: value(np.moveaxis(shares, (-2, -1), axes))})


def _ways(free: NDArray, seen: NDArray) -> Iterator[NDArray]:
    """Scores with a mask: by minus infinity, by a number in their place, by a number added to them."""
    full = seen.any(axis=-1).all()
    if full:
        yield np.where(seen, free, -np.inf)
    else:  # a query that sees nothing: every key has the same share, or as if it saw all
        yield np.where(seen, free, _OUT)
        yield free + np.where(seen | ~seen.any(axis=-1, keepdims=True), 0.0, _OUT)


def unmasked(region: Region, a: Attention) -> NDArray | None:
    """The scores as they would go to the softmax without a mask; None where the code can't be followed."""
    changes: dict = {}
    earlier = {a.scores}
    for place in a.chain:
        node = region.node(place)
        if node.op in ("masked_fill", "_causal"):
            kept = node.argument("self")
            changes[place] = lambda get, kept=kept: get(kept)
        elif node.op == "where":
            kept = next((p for p in (node.argument("self"), node.argument("other")) if p in earlier), None)
            if kept is None:
                return None
            changes[place] = lambda get, kept=kept: get(kept)
        elif (ways := way(region, a, place)) is not None:
            kept, other = ways
            if region.value(other).dtype == bool:
                changes[place] = lambda get, kept=kept: get(kept)
            else:
                changes |= _without_mask(region, other)
        earlier.add(place)
    return _logits(region, a, changes)


def _without_mask(region: Region, place: int) -> dict:
    """What makes something that is added to scores, a bias with a mask in it say, the same without the mask."""
    masked = region.value(place)
    if not isinstance(masked, np.ndarray) or not (masked < MASKED).any():
        return {}
    node = region.node(place)
    changes: dict = {}
    if place not in region.cut and node.op in MOVES and node.parents:
        changes = _without_mask(region, node.parents[0])
    elif place not in region.cut and node.op in ("add", "sub"):
        for parent in node.parents:
            changes |= _without_mask(region, parent)
    elif place not in region.cut and node.op in ("masked_fill", "where"):
        kept = [p for p in map(node.argument, ("self", "other")) if p is not None and not _far(region.value(p))]
        shape = masked.shape
        changes = {place: lambda get, kept=kept[0]: np.broadcast_to(get(kept), shape)} if kept else {}
    return changes or {place: lambda get: np.where(masked < MASKED, 0.0, masked)}


def _far(values: NDArray) -> bool:
    return bool((np.asarray(values) < MASKED).all())


def _logits(region: Region, a: Attention, changes: Changes) -> NDArray | None:
    try:
        free = np.asarray(region.changed(changes, a.logits), np.float64)
    except (CannotRun, ValueError, IndexError):
        return None
    return free if np.isfinite(free).all() else None


def _masks(seen: NDArray) -> Iterator[tuple[str, str, NDArray]]:
    """Masks that people write instead of one, True where something is seen; queries and keys are the last axes."""
    t, s = seen.shape[-2:]

    def triangle(moved: int) -> NDArray:
        return np.tril(np.ones((t, s), bool), moved + s - t)

    causal, every = triangle(0), np.ones_like(seen)
    keys = seen.any(axis=-2, keepdims=True)  # that anyone sees: those that aren't padding
    is_causal = bool((seen == (causal & keys)).all()) and not seen.all() and t > 1 and not causal.all()
    if seen.all():
        yield "causal_added", "attention is causal, in PyTorch it isn't", causal
        return
    none = "causal mask: there is none" if is_causal and keys.all() else "there is no mask"
    if (seen == keys).all() and t == s:
        none += "; or, where a number is added to the scores, the padding is masked as queries, which changes nothing"
    yield "mask_missing", none, every
    if is_causal:
        padded = not keys.all()
        yield "mask_off_by_one", "the causal mask is off by one: each place sees the next one", triangle(1) & keys
        yield "mask_off_by_one", "the causal mask is off by one: no place sees itself", triangle(-1) & keys
        yield (
            "mask_transposed",
            "the causal mask is transposed: places see what follows them",
            causal.T & keys if t == s else every,
        )
        yield "mask_inverted", "the causal mask is inverted", ~causal & keys
        if t != s:
            yield "mask_off_by_one", "the causal mask starts at the first key", np.tril(np.ones((t, s), bool)) & keys
        apart = np.arange(t)[:, None] + s - t - np.arange(s)
        for width in sorted({*range(1, _WIDTHS), t // 4, t // 2} & {*range(1, t)}):
            text = f"attention has a window of {width} places, in PyTorch it has none"
            yield "window_added", text, causal & keys & (apart < width)
        if padded:
            yield "padding_ignored", "the padding isn't masked", np.broadcast_to(causal, seen.shape)
            yield "causal_missing", "only the padding is masked, not the future", np.broadcast_to(keys, seen.shape)
            yield "padding_inverted", "the mask of the padding is inverted", causal & ~keys
    yield "mask_inverted", "the mask is inverted", ~seen
    if t == s:
        yield "mask_transposed", "the mask is transposed: queries stand for keys", np.swapaxes(seen, -1, -2)
        yield "mask_both", "padding is masked as queries too", seen & np.swapaxes(seen, -1, -2)
    if not is_causal:
        yield "causal_added", "attention is causal besides, in PyTorch it isn't", seen & causal
        yield from _windows(seen, causal)
    for axis in range(seen.ndim - 2):
        if seen.shape[axis] > 1:
            yield "mask_order", "examples get the masks of others", np.roll(seen, 1, axis)
    for k in (k for k in range(2, len(seen)) if len(seen) % k == 0 and seen.ndim > 2):
        order = seen.reshape(k, -1, *seen.shape[1:]).swapaxes(0, 1).reshape(seen.shape)
        yield "mask_order", "masks are repeated in another order over examples", order
    if seen.ndim >= 3 and (n := len(seen)) > 1:
        rest = seen.reshape(-1, t, s)
        for inner in {seen.shape[1] if seen.ndim == 4 else 0, *(k for k in range(2, n) if n % k == 0)} - {0, 1}:
            if len(rest) % inner == 0:
                order = rest.reshape(-1, inner, t, s).swapaxes(0, 1).reshape(seen.shape)
                yield "mask_order", "masks are repeated in another order over heads and examples", order


def _windows(seen: NDArray, causal: NDArray) -> Iterator[tuple[str, str, NDArray]]:
    """Of a mask with a window: another one by one place, or none."""
    t, s = seen.shape[-2:]
    apart = np.arange(t)[:, None] + s - t - np.arange(s)
    one = seen.reshape(-1, t, s).any(axis=0)
    width = int(apart[one].max(initial=0)) + 1
    if (one == (causal & (apart < width))).all():
        yield "window_missing", f"attention has no window of {width} places", seen | causal
        for other in (width + 1, width - 1, 2 * width, width // 2):
            yield "window_size", f"the window is {other} places wide, not {width}", causal & (apart < other)
        within = apart < width
        yield "mask_off_by_one", "the causal mask is off by one: each place sees the next one", within & (apart >= -1)
        yield "mask_off_by_one", "the causal mask is off by one: no place sees itself", within & (apart >= 1)
        yield "causal_missing", f"the window of {width} places is there, the causal mask isn't", within
        yield "window_both", f"the window reaches {width - 1} places ahead, too", abs(apart) < width
    elif (one == (abs(apart) < width)).all():
        for other in (width + 1, width - 1, 2 * width - 1):
            yield "window_size", f"the window reaches {other - 1} places, not {width - 1}", abs(apart) < other
