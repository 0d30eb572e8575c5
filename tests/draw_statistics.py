"""Is a sample as it should be? p-values in closed form, and the alarm that tests raise over them.

A p-value is the probability that draws without a fault look as odd as these or odder. A test that looks at n of them
raises an alarm where the smallest times n is below `FALSE_ALARM`; so no test's rate of false alarms, over all seeds,
is above that. Seeds are fixed: a test that passes goes on passing.
"""

import functools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM = 1e-6
BINS = 16


def assert_no_alarm(p_values: dict[str, float]) -> None:
    """Fail, naming the oddest of the quantities, where chance explains them once in a million times or less."""
    assert p_values
    name = min(p_values, key=p_values.__getitem__)
    assert p_values[name] * len(p_values) >= FALSE_ALARM, f"{name}: p = {p_values[name]:.3g} of {len(p_values)}"


def chi_square_tail(x: float, freedom: int) -> float:
    """P(chi-squared >= x), from the finite series that integer degrees of freedom have."""
    if x <= 0:
        return 1.0
    half, odd = x / 2, freedom % 2
    powers = (k + odd / 2 for k in range(freedom // 2))
    terms = (math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers)
    return math.fsum((math.erfc(math.sqrt(half)) if odd else 0.0, *terms))


def both_sides(tail: float) -> float:
    """The p-value of a quantity that may be too small as well as too large, given P(as large or larger)."""
    return 2 * min(tail, 1 - tail)


@functools.cache
def _binomial(n: int, share: float) -> NDArray[np.float64]:
    """P(k successes) for k = 0 to n."""
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + math.log(share) - math.log1p(-share)
    return np.exp(n * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)]))


def fair(hits: NDArray[np.bool_], share: float = 0.5) -> float:
    """p-value of independent hits with a probability of `share`: exact, both tails."""
    n, k = hits.size, int(hits.sum())
    chances = _binomial(n, share)
    return min(1.0, 2 * min(float(chances[: k + 1].sum()), float(chances[k:].sum())))


def uniform(values: NDArray, kinds: int) -> float:
    """p-value of values 0 to kinds - 1, all equally likely: chi-squared."""
    counts = np.bincount(values.ravel(), minlength=kinds)
    assert len(counts) == kinds, f"values from 0 to {kinds - 1} were expected, not up to {len(counts) - 1}"
    expected = values.size / kinds
    assert expected >= 50  # where the sums are as good as chi-squared far out in the tail
    return chi_square_tail(float(((counts - expected) ** 2).sum() / expected), kinds - 1)


def independent(a: NDArray, b: NDArray) -> float:
    """p-value of pairs (a, b) of whole numbers from 0 that say nothing of each other: chi-squared of their table."""
    a, b = a.ravel().astype(int), b.ravel().astype(int)
    kinds = int(a.max()) + 1, int(b.max()) + 1
    table = np.bincount(a * kinds[1] + b, minlength=kinds[0] * kinds[1]).reshape(kinds)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert min(kinds) > 1, "one of the two never changes"
    assert expected.min() >= 15
    return chi_square_tail(float(((table - expected) ** 2 / expected).sum()), (kinds[0] - 1) * (kinds[1] - 1))


def bins(x: NDArray, spread: float) -> NDArray[np.int64]:
    """Which of `BINS` equally likely intervals of N(0, spread squared) each value falls into."""
    law = NormalDist(0, spread)
    return np.searchsorted([law.inv_cdf(k / BINS) for k in range(1, BINS)], x)


def variance(x: NDArray, spread: float) -> float:
    """p-value of values from N(0, spread squared) having this sum of squares: exact, both sides."""
    return both_sides(chi_square_tail(float(np.sum(np.square(x / spread))), x.size))


def permutations_fair(orders: NDArray[np.int64]) -> float:
    """p-value of every example being equally often at every place, over permutations (count, n).

    Of the table of counts, rows and columns have fixed sums; what is left, (n - 1)^2 degrees of freedom, has a variance
    of count/(n - 1) each.
    """
    count, n = orders.shape
    table = np.stack([np.bincount(orders[:, place], minlength=n) for place in range(n)])
    return chi_square_tail(float(((table - count / n) ** 2).sum() * (n - 1) / count), (n - 1) ** 2)


def shifted(cube: NDArray, shift: tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """Two views of `cube`, the second taken `shift` further along the leading axes: pairs of neighbours."""
    sides = list(zip(shift, cube.shape, strict=False))
    first = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in sides)
    second = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in sides)
    return cube[first], cube[second]
