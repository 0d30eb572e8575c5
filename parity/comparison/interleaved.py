"""How several layers' features lie in one layer that holds them all: side by side, or block by block.

Queries, keys and values may lie one behind the other, (3, heads, dim), or each head's side by side, (heads, 3, dim), or
each number's, (heads * dim, 3). In general there are so many blocks, each with a share of every part in their order;
one block is the first case. Which it is, only the code behind the layer says: by what it takes out of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pattern(NamedTuple):
    """The features from `start` up to `stop` of each `period` of them."""

    start: int
    stop: int
    period: int


def pattern(features: NDArray, total: int) -> Pattern | None:
    """Which pattern some of so many features are; None if they are none.

    Args:
        features: their places, ascending, each once.
        total: of the layer.
    """
    if not len(features):
        return None
    gaps = np.flatnonzero(np.diff(features) != 1)
    run = int(gaps[0]) + 1 if len(gaps) else len(features)
    period = int(features[run] - features[0]) if len(gaps) else total
    found = Pattern(int(features[0]), int(features[0]) + run, period)
    whole = total % period == 0 and found.stop <= period
    return found if whole and np.array_equal(features, places(found, total)) else None


def places(each: Pattern, total: int) -> NDArray:
    """The features of a pattern among so many, ascending."""
    return np.arange(total).reshape(-1, each.period)[:, each.start : each.stop].ravel()


def patterns(sizes: Sequence[int], blocks: int) -> list[Pattern]:
    """Where parts of these sizes lie, in so many blocks."""
    ends = np.cumsum([0, *(size // blocks for size in sizes)]).tolist()
    return [Pattern(start, stop, ends[-1]) for start, stop in itertools.pairwise(ends)]


def blocks(sizes: Sequence[int], taken: Collection[Pattern]) -> int:
    """In how many blocks parts of these sizes lie, if code takes these out of them: as few as explain it, else 1."""
    common = math.gcd(*sizes)
    for count in range(1, common + 1):
        if common % count == 0 and all(part in taken for part in patterns(sizes, count)):
            return count
    return 1
