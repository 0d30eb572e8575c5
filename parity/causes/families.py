"""All mistakes that are tried on the code between layers, a family after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from parity.causes import (
    added_norms,
    added_numbers,
    alike,
    attention,
    before_layers,
    branches,
    caps,
    choices,
    comparisons,
    complex_parts,
    constants,
    counts,
    distances,
    dropout,
    epsilons,
    functions,
    geometry,
    grids,
    heads,
    limits,
    losses,
    masks,
    measured_factors,
    moved_factors,
    moved_terms,
    norm_operations,
    numbers,
    operations,
    orders,
    other_code,
    other_inputs,
    other_items,
    other_parameters,
    other_parts,
    other_places,
    powers,
    recurrences,
    rotary,
    rounded_values,
    shifts,
    sinusoids,
    skipped_moves,
    sums,
    tokens,
    turns,
    written_functions,
    written_norms,
)
from parity.causes.attempts import WRONG, Attempt, Problem
from parity.causes.precision import coarser

Family = Callable[[Problem], Iterator[Attempt]]

# Likely ones first: of several mistakes that give the same numbers the first one is named.
FAMILIES: tuple[Family, ...] = (
    sums.handed_on,
    attention.attempts,
    masks.attempts,
    heads.attempts,
    rotary.attempts,
    sinusoids.attempts,
    caps.attempts,
    choices.attempts,
    distances.attempts,
    turns.attempts,
    other_parameters.attempts,
    functions.attempts,
    epsilons.attempts,
    powers.attempts,
    limits.attempts,
    geometry.attempts,
    norm_operations.attempts,
    losses.attempts,
    shifts.attempts,
    skipped_moves.attempts,
    sums.attempts,
    comparisons.attempts,
    operations.attempts,
    complex_parts.attempts,
    branches.attempts,
    before_layers.attempts,
    written_norms.attempts,
    counts.attempts,
    added_norms.attempts,
    recurrences.attempts,
    moved_factors.attempts,
    moved_terms.attempts,
    recurrences.indices,
    grids.attempts,
    other_inputs.attempts,
    other_parts.attempts,
    other_parameters.exchanged,
    sums.made_elsewhere,
    tokens.attempts,
    other_items.attempts,
    other_code.attempts,
    orders.attempts,
    added_numbers.attempts,
    numbers.attempts,
    written_functions.attempts,
    other_places.attempts,
    sums.sources,
    dropout.dropped,
    sums.added,
    measured_factors.attempts,
    constants.attempts,
    lambda problem: rounded_values.rounded(problem, coarser("float64")),
)

# Of these two at once are tried.
SIMPLE: tuple[Family, ...] = (
    attention.attempts,
    masks.attempts,
    heads.attempts,
    rotary.attempts,
    choices.attempts,
    functions.attempts,
    geometry.attempts,
    losses.attempts,
    sums.attempts,
    operations.attempts,
    branches.attempts,
    recurrences.attempts,
    moved_factors.attempts,
    recurrences.indices,
    orders.attempts,
)


# Of these mistakes that are made in all places alike are tried: in the code of functions, which have no layers; and in
# that between layers, where a list of layers is called in a comprehension, say.
ALIKE: tuple[Family, ...] = (
    *SIMPLE,
    tokens.attempts,
    other_parameters.attempts,
    other_inputs.attempts,
    epsilons.attempts,
    powers.attempts,
    numbers.attempts,
    shifts.attempts,
    comparisons.attempts,
    complex_parts.attempts,
    moved_terms.attempts,
    norm_operations.attempts,
    written_norms.attempts,
)
ALIKE_BETWEEN: tuple[Family, ...] = (sums.attempts, functions.attempts, tokens.attempts, recurrences.indices)


def simple(problem: Problem) -> Iterator[Attempt]:
    """Those mistakes of which two at once are tried."""
    return attempts(problem, SIMPLE)


def everywhere(problem: Problem, families: tuple[Family, ...]) -> Iterator[Attempt]:
    """Mistakes that are made in all layers of a list, or in all calls of a function, at once.

    See `alike`.
    """
    for family in families:
        yield from alike.everywhere(problem, lambda inner, family=family: attempts(inner, (family,)))


def attempts(problem: Problem, families: tuple[Family, ...] = FAMILIES) -> Iterator[Attempt]:
    """Every mistake, as long as there is something left to spend."""
    for family in families:
        made = family(problem)
        while not problem.spent:
            try:
                with np.errstate(all="ignore"):  # what a mistake leads to may well be infinite
                    attempt = next(made, None)
            except WRONG:
                break  # this code isn't what the family is about
            if attempt is None:
                break
            yield attempt
