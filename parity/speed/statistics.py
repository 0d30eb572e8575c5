"""What may be concluded from paired timings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A median and the middle 95% of its bootstrap distribution."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{brief(self.median)} [{brief(self.low)}, {brief(self.high)}]"


_UNKNOWN = Interval(math.nan, math.nan, math.nan)


def brief(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def median_interval(values: ArrayLike, seed: int = 0) -> Interval:
    """The median of independent values; the interval is a point if there is one value.

    All three numbers are NaN unless all values are finite; likewise of the ratios below.
    """
    sample = np.asarray(values, np.float64)
    if not np.isfinite(sample).all():
        return _UNKNOWN
    rng = np.random.default_rng(seed)
    medians = np.median(sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Interval(float(np.median(sample)), float(low), float(high))


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """The median ratio of pairs measured one after the other, so that what both suffer from cancels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return median_interval(np.asarray(numerators, np.float64) / np.asarray(denominators, np.float64), seed)


def apart_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """The ratio of two medians of values that were measured apart, each with its own spread."""
    over, under = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if not np.isfinite([*over, *under]).all():
        return _UNKNOWN
    rng = np.random.default_rng(seed)
    tops, bottoms = (
        np.median(sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1) for sample in (over, under)
    )
    low, high = np.percentile(tops / bottoms, [2.5, 97.5])
    return Interval(float(np.median(over) / np.median(under)), float(low), float(high))


def alternation(rounds: int) -> list[tuple[int, int]]:
    """The order of two rivals in each round: AB, BA, AB, ... so that a drift favours neither."""
    return [(0, 1) if i % 2 == 0 else (1, 0) for i in range(rounds)]


def verdict(ratio: Interval, first: str, second: str) -> str:
    """The ratio of speeds in words: nobody wins while 1 lies inside the interval, or if it isn't finite."""
    if not all(map(math.isfinite, (ratio.low, ratio.median, ratio.high))):
        return f"nothing can be said of {first} and {second}: the ratio isn't finite"
    if ratio.low > 1:
        return f"{first} is {ratio.median:.2f} times as fast as {second}"
    if ratio.high < 1:
        return f"{second} is {1 / ratio.median:.2f} times as fast as {first}"
    return f"no difference shown between {first} and {second}"
