"""Naming what is wrong between two layers: the functions that the reference ran there, with one mistake each.

PyTorch's own operations since the last layer were recorded (`ops` of a capture). If they form a plain chain (ReLU,
pools, flattening, arithmetic with constants), the chain is rebuilt in NumPy, and every mistake is tried on it: one in
a link, a link left out, two neighbours exchanged, a ReLU too many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.layer.parameters import Cause, explains
from parity.causes.layer.precision import FORMATS
from parity.kinds import registry
from parity.kinds.activation import FUNCTIONS
from parity.kinds.layer import Layer, Mistake, Recorded, Settings

_SILENT = {"clone", "detach", "alias", "contiguous", "_to_copy", "copy", "lift_fresh", "empty", "empty_like"}
_RESHAPING = {"view", "_unsafe_view", "reshape", "_reshape_alias", "flatten"}


@dataclass(frozen=True)
class Link:
    """One function of a chain.

    Attributes:
        name: for people.
        run: what it computes.
        layer: it as a layer, whatever its input; None if only leaving it out can be tried.
    """

    name: str
    run: Callable[[NDArray], NDArray]
    layer: Layer | None = None


def explain(ops: list[Any], starts: list[NDArray], reference: NDArray, ours: NDArray, tolerance: float) -> list[Cause]:
    """Causes of a difference between what a chain of functions gives on both sides.

    Args:
        ops: recorded operations, [name, plain arguments], oldest first.
        starts: arrays that the chain may have started from, likeliest first.
        reference: what PyTorch's chain gave, in PyTorch's layout; likewise ours, Flax's.
        ours: see `reference`; the shape may differ.
        tolerance: largest difference that counts as none.
    """
    links = chain(ops)
    if links is None:
        return []
    for start in starts:
        x = np.asarray(start, np.float64)
        right = _run(links, x)
        if right is None or right.size != reference.size:
            continue
        before = _far(reference, ours)
        if not within(_far(right, reference), tolerance):
            if within(_far(right, ours), tolerance):
                # PyTorch's own operations, as they were seen, give what Flax gave: it rounds on the way.
                return _rounded(links, x, reference, "torch", before, tolerance)
            continue
        if found := _rounded(links, x, ours, "jax", before, tolerance):
            return found
        for key, text, wrong in _mistakes(links, x):
            predicted = _run(wrong, x)
            if predicted is None or predicted.size != ours.size or _same(predicted, reference):
                continue
            after = _far(predicted, ours)
            if explains(before, after, tolerance):
                return [Cause(key, "jax", text, before, after)]
        return []
    return []


def _rounded(links: list[Link], x: NDArray, wrong: NDArray, side: str, before: float, tolerance: float) -> list[Cause]:
    """One of the arrays on the way is rounded to fewer bits."""
    for key, form in FORMATS.items():
        rounding = Link(form.name, form.rounded)
        for i in range(len(links) + 1):
            predicted = _run([*links[:i], rounding, *links[i:]], x)
            after = float("inf") if predicted is None else _far(predicted, wrong)
            if explains(before, after, tolerance):
                return [Cause(key, side, f"values are rounded to {form.name}", before, after)]
    return []


def chain(ops: list[Any]) -> list[Link] | None:
    """Recorded operations as links; None if one of them isn't a function of one array."""
    links: list[Link] = []
    for name, args in ops:
        if name in _SILENT:
            continue
        link = _link(name, list(args))
        if link is None:
            return None
        links.append(link)
    return links


def _link(name: str, args: list[Any]) -> Link | None:
    if name in _RESHAPING:
        return Link("flatten", lambda x: x.reshape(x.shape[0], -1))
    if (known := registry.operation(name)) is not None:
        settings = known.settings(args)
        return None if settings is None else _known(known.class_name, known.title, settings)
    if name in FUNCTIONS:
        return Link(name, FUNCTIONS[name].function)
    numbers = [a for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if name in ("mul", "div", "add", "sub") and len(numbers) == 1:
        value = float(numbers[0])
        operations = {"mul": lambda x: x * value, "div": lambda x: x / value, "add": lambda x: x + value}
        return Link(f"{name} {value:g}", operations.get(name, lambda x: x - value))
    return None


def _known(class_name: str, title: str, settings: Settings) -> Link | None:
    maps = (np.zeros((1,) * rank) for rank in (4, 3, 5))  # of as many directions as the class has
    layer = next((each for x in maps if (each := registry.layer(Recorded(class_name, settings, x))) is not None), None)
    return None if layer is None else Link(title, lambda x: replace(layer, x=x).compute(), layer)


def _mistakes(links: list[Link], start: NDArray) -> Iterator[tuple[str, str, list[Link]]]:
    x = start
    for i, link in enumerate(links):
        if link.layer is not None:
            for mistake in replace(link.layer, x=x).mistakes():
                missing = mistake.key == _missing(link)
                text = f"{link.name} is left out" if missing else f"{link.name}: {mistake.text}"
                yield mistake.key, text, [*links[:i], _with(link, mistake), *links[i + 1 :]]
        x = link.run(x)
    for i, (one, two) in enumerate(itertools.pairwise(links)):
        swapped = [*links[:i], two, one, *links[i + 2 :]]
        yield "order", f"{one.name} and {two.name} are in another order", swapped
    for i, link in enumerate(links):
        yield _missing(link), f"{link.name} is left out", [*links[:i], *links[i + 1 :]]
    relu = Link("ReLU", lambda x: np.maximum(x, 0))
    for i in range(len(links) + 1):
        yield "relu_added", "there is a ReLU too many", [*links[:i], relu, *links[i:]]


def _missing(link: Link) -> str:
    return f"{link.name.lower().replace(' ', '_')}_missing"


def _with(link: Link, mistake: Mistake) -> Link:
    def run(x: NDArray) -> NDArray:
        changed = None if link.layer is None else mistake.apply(replace(link.layer, x=x))
        if changed is None:
            raise ValueError(mistake.key)
        return changed.compute()

    return Link(link.name, run)


def _run(links: list[Link], x: NDArray) -> NDArray | None:
    try:
        for link in links:
            x = link.run(x)
    except (ValueError, IndexError):
        return None
    return x


def _same(a: NDArray, b: NDArray) -> bool:
    return a.size == b.size and np.array_equal(a.ravel(), b.ravel())


def _far(a: NDArray, b: NDArray) -> float:
    return farthest(a.ravel(), b.ravel())
