"""Mistakes in distances and similarities: roots, lengths and epsilons left out or in another place, other norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.numpy_operations.distances import norm

Mistakes = Iterator[tuple[str, str, NDArray]]

_EPSILONS = (1e-8, 1e-6, 1e-12, 1e-5, 1e-7)


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each of them, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        one, two = node.argument("x1"), node.argument("x2")
        if node.op in _OF and one is not None and two is not None:
            for key, text, made in _OF[node.op](node.args, region.value(one), region.value(two)):
                words = f"{node.op} of {problem.words(one)} and {problem.words(two)}: {text}"
                yield Attempt(key, words, {place: value(made)})


def _similarity(args: Any, one: NDArray, two: NDArray) -> Mistakes:
    axis, own = args.get("dim", 1), args.get("eps", 1e-8)
    product = np.sum(one * two, axis)
    a, b = (norm(x, 2, (axis,)) for x in (one, two))
    yield "norm_missing", "nothing is divided by the lengths", product
    yield "norm_missing", "nothing is divided by the length of the second", product / np.maximum(a, own)
    yield "norm_missing", "nothing is divided by the length of the first", product / np.maximum(b, own)
    yield "norm_kind", "products are divided by squared lengths, not by lengths", product / np.maximum(a * b, own) ** 2
    sizes = (np.sum(np.abs(x), axis) for x in (one, two))
    yield "norm_kind", "lengths are sums of sizes, not of squares", product / np.maximum(math.prod(sizes), own)
    roots = (np.sqrt(np.mean(x * x, axis)) for x in (one, two))
    yield "norm_kind", "squares are averaged, not added up, in lengths", product / np.maximum(math.prod(roots), own)
    for epsilon in dict.fromkeys((own, *_EPSILONS)):
        for text, lengths in (
            ("is added to the product of the lengths", a * b + epsilon),
            ("is added to each length", (a + epsilon) * (b + epsilon)),
            ("is added to each sum of squares", np.sqrt((a * a + epsilon) * (b * b + epsilon))),
            ("is added under the root of both sums of squares", np.sqrt(a * a * b * b + epsilon)),
        ):
            words = f"{epsilon:g} {text}, where lengths are {own:g} at least in PyTorch (epsilon)"
            yield "epsilon_placed", words, product / lengths
    lengths = np.maximum(a * b, own)
    yield "similarity_sign", "its distance, 1 minus it, stands for it", 1 - product / lengths
    yield "similarity_sign", "it has the other sign", -product / lengths
    one, two = (x - x.mean(axis, keepdims=True) for x in (one, two))
    made = np.sum(one * two, axis) / np.maximum(norm(one, 2, (axis,)) * norm(two, 2, (axis,)), own)
    yield "mean_subtracted", "means are subtracted first, as in a correlation", made


def _distance(args: Any, one: NDArray, two: NDArray) -> Mistakes:
    own, order, keep = args.get("eps", 1e-6), args.get("p", 2.0), bool(args.get("keepdim", False))
    apart = one - two + own

    def summed(x: NDArray) -> NDArray:
        return np.sum(x, -1, keepdims=keep)

    if order == 2:
        yield "norm_kind", "it is squared: the root of the sum of squares isn't taken", summed(apart**2)
        yield "norm_kind", "it is squared, and without its epsilon", summed((one - two) ** 2)
        yield "norm_kind", "squares are averaged, not added up", np.sqrt(np.mean(apart**2, -1, keepdims=keep))
        yield "norm_kind", "squares are averaged, and no root is taken", np.mean(apart**2, -1, keepdims=keep)
        for epsilon in dict.fromkeys((own, own * own, *_EPSILONS)):
            words = f"{epsilon:g} is added to the sum of squares, not {own:g} to the differences (epsilon)"
            yield "epsilon_placed", words, np.sqrt(summed((one - two) ** 2) + epsilon)
    plain = norm(one - two, order, (-1,), keep)
    yield "epsilon_missing", f"its epsilon {own:g} isn't added to the differences: it is left out", plain
    yield "epsilon_placed", f"{own:g} is added to the distance, not to the differences (epsilon)", plain + own
    made = norm(apart - 2 * own, order, (-1,), keep)
    yield "term_sign", f"its epsilon {own:g} has the other sign, or the two are exchanged", made
    for other, words in ((2.0, "Euclidean norm"), (1.0, "sum of sizes"), (np.inf, "largest size")):
        if other != order:
            yield "norm_kind", f"it is the {words} of the differences, epsilon and all", norm(apart, other, (-1,), keep)
            yield "norm_kind", f"it is the {words} of the differences", norm(one - two, other, (-1,), keep)
    for axis in range(apart.ndim - 1):
        yield "norm_axis", f"it is taken along axis {axis} of {list(apart.shape)}", norm(apart, order, (axis,), keep)


_OF: dict[str, Callable[[Any, NDArray, NDArray], Mistakes]] = {
    "cosine_similarity": _similarity,
    "pairwise_distance": _distance,
}
