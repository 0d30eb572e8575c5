"""Norms where PyTorch has none: values divided by their length, or standardised, over some axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest
from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.mistakes.functions.functions import EPSILONS
from parity.causes.mistakes.numbers.sums import computed

_NEAR = 30.0  # by which factor a difference must fall before small numbers are looked for that a norm may add
_MOST_NODES = 24


def _length(x: NDArray, axes: tuple[int, ...], epsilon: float) -> NDArray:
    return x / np.sqrt((x**2).sum(axes, keepdims=True) + epsilon)


def _root_mean_square(x: NDArray, axes: tuple[int, ...], epsilon: float) -> NDArray:
    return x / np.sqrt((x**2).mean(axes, keepdims=True) + epsilon)


def _standardised(x: NDArray, axes: tuple[int, ...], epsilon: float) -> NDArray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


_NORMS: dict[str, Callable[[NDArray, tuple[int, ...], float], NDArray]] = {
    "divided by its length": _length,
    "divided by its root mean square": _root_mean_square,
    "standardised": _standardised,
}


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Every norm of every value, over axes that lie side by side, the last values first."""
    if problem.right.shape != problem.observed.shape:
        return
    before = farthest(problem.right, problem.observed)
    for place in reversed(computed(problem)[-_MOST_NODES:]):
        x = problem.region.value(place)
        for axes in () if x.ndim < 2 or np.iscomplexobj(x) else _axes(x.shape):
            for words, norm in _NORMS.items():
                if problem.spent:
                    return
                if not problem.left({place: value(norm(x, axes, 0.0))}) * _NEAR < before:
                    continue
                for epsilon in EPSILONS:
                    text = f"{problem.words(place)} is {words} over axes {list(axes)}, in PyTorch it isn't"
                    yield Attempt("norm_added", f"{text} (epsilon {epsilon:g})", {place: value(norm(x, axes, epsilon))})


def _axes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Axes that lie side by side, the examples' left out, of more than one value each."""
    for end in range(len(shape), 1, -1):
        for start in range(end - 1, 0, -1):
            if math.prod(shape[start:end]) > 1:
                yield tuple(range(start, end))
