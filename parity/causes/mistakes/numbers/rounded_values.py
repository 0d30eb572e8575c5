"""Values between layers that are rounded to fewer bits: a node's, or a mean's on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.nodes import Get
from parity.causes.layer.precision import Format
from parity.causes.mistakes.attempts import Attempt, Problem, value
from parity.causes.mistakes.numbers.sums import computed


def rounded(problem: Problem, formats: Mapping[str, Format]) -> Iterator[Attempt]:
    """A node that is rounded to fewer bits."""
    region = problem.region
    for place in reversed(computed(problem)):
        for key, form in formats.items():
            text = f"{problem.words(place)} is rounded to {form.name}"

            def change(get: Get, place: int = place, form: Format = form) -> NDArray:
                return form.rounded(region.value(place))

            yield Attempt(key, text, {place: change})
            start = region.node(place).argument("self")
            if region.node(place).op == "mean" and start is not None:
                made = _averaged(region.value(start), region.value(place), form.rounded)
                text = f"{problem.words(place)} is computed in {form.name}"
                yield Attempt(key, text, {place: value(made)})


def _averaged(x: NDArray, mean: NDArray, form: Callable[[NDArray], NDArray]) -> NDArray:
    """A mean of counted things in fewer bits: their number times the rounded share of one, as XLA divides by n."""
    count = np.size(x) // max(np.size(mean), 1)
    return form(form(mean * count) * form(np.asarray(1 / count)))
