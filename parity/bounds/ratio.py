"""Lane C: do both sides compute in the same precision? The ratio of their errors, and how far from 1 it may lie.

Correct implementations of one sum of n terms differ in the order of their additions: on every processor, for every
number of threads and form of a convolution in another way. What an order may do to the error is derived here; what
lies outside is another precision.

**Sums of products.** An order is a binary tree whose n - 1 inner nodes are the additions. Each rounds its own partial
sum, independently of the others (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019), so
the error's variance is the sum of the squared partial sums over the nodes, times a common factor. k terms of mean m
and variance v make a partial sum of mean square k v + k^2 m^2. Hence the variances

    order          terms that cancel, in v    terms of one sign, in m^2
    pairwise       n log2 n                   2 n (n - 1)
    in sequence    n (n + 1) / 2 - 1          n (n + 1) (2 n + 1) / 6 - 1

Pairwise is the best tree of all, in sequence the worst. Without fused multiplications each product is one more
rounding, n in all. Mixtures of the two columns lie between them, so that the root-mean-square errors of any two orders
are at most `spread_of_orders(n)` apart, the root of the larger quotient: about sqrt(n / 6) from n = 8 on, 7.8 for
n = 364 and 39 for n = 9217. TF32 rounds the factors 2^13 times more coarsely, bfloat16 2^16 times; a result that was
kept in float64 errs 2^29 times less.

**bfloat16 and float16** products are summed in float32, and the sum is rounded once or twice: 2. What a side adds up in
the lane's own format, as autodiff does with the gradients of biases, errs by u times the root of the squared partial
sums, of the table's second row at most: errors below that count as that much.

**Anything else** (norms, averages, elementary functions) differs as its sums do, or as its elementary functions do,
each of which makes from one rounding to `ELEMENTARY`.

**Storing** a result y rounds it by up to u |y|, whatever it was computed in: errors below u rms(y) count as that much.
Less than the distance to the next number of the lane's format isn't possible in that format at all.

**Chance.** A root mean square of m independent errors of kurtosis K is known to within a relative standard deviation
of sqrt((K - 1) / (m - 1)) / 2, by their own kurtosis or that of a normal distribution. The limits are wider by four
deviations of the ratio.

**Too good.** A side that sums in float64 and rounds once lies within the limits, since pairwise sums may come close. It
is told by what one rounding of the float64 result would leave, e. In sequence k terms err by no more than
sqrt(k / 2 + 3/2) e, so the other side's error says how many terms, of n, count at least. And in no order k of them err
by less than sqrt(2 - 2 / k) e, the pairwise sum of terms of one sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.bounds.magnitudes import ELEMENTARY, UNIT_ROUNDOFF

# Standard deviations that chance is given: as many as lane A's roundings, see `parity.bounds.magnitudes`.
DEVIATIONS = 4.0


@dataclass(frozen=True)
class Ratio:
    """How one side's errors compare with the other's.

    Attributes:
        value: RMSE(candidate, float64) / RMSE(reference, float64); None where the reference makes no error.
        why: what is wrong with it, in words; empty if nothing is, or if it says nothing.
    """

    value: float | None
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether both sides may well compute in the same precision."""
        return not self.why


def spread_of_orders(n: int) -> float:
    """How far apart the root-mean-square errors of two orders of summing n terms may lie; at least 1."""
    if n < 2:
        return 1.0
    cancelling = (n * (n + 1) / 2 - 1 + n) / (n * math.log2(n))
    alike = (n * (n + 1) * (2 * n + 1) / 6 - 1 + n) / (2 * n * (n - 1))
    return math.sqrt(max(cancelling, alike))


def squared_partial_sums(n: int, mean: NDArray, variance: NDArray) -> NDArray:
    """The expected sum of the squared partial sums of n terms in sequence, of this mean and variance."""
    return variance * max(n * (n + 1) / 2 - 1, 0.0) + mean**2 * max(n * (n + 1) * (2 * n + 1) / 6 - 1, 0.0)


def limit(n: int, dtype: str, linear: bool) -> float:
    """How far from 1 the ratio of very many values' errors may lie, upwards or downwards.

    Args:
        n: terms summed for one output, bias included; of anything but a sum of products, roundings in a row.
        dtype: of the lane.
        linear: whether it is a sum of products.
    """
    if not linear:
        return max(spread_of_orders(n), float(ELEMENTARY))
    return 2.0 if dtype in ("bfloat16", "float16") else spread_of_orders(n)


def error_ratio(
    candidate: NDArray,
    reference: NDArray,
    truth: NDArray,
    dtype: str,
    n: int,
    linear: bool = True,
    rounded: NDArray | None = None,
) -> Ratio:
    """Compare both sides' root-mean-square errors against the float64 result of the same inputs and weights.

    Args:
        candidate: one side's result; finite, as are the others.
        reference: the other's.
        truth: the float64 result.
        dtype: of the lane.
        n: see `limit`; likewise linear.
        linear: see `limit`.
        rounded: standard deviations of what a side's own additions in the lane's format round off, if it has any.
    """
    truth = np.asarray(truth, np.float64)
    ours, theirs = (np.asarray(side, np.float64) - truth for side in (candidate, reference))
    errors = {"JAX": _rms(ours), "PyTorch": _rms(theirs)}
    value = errors["JAX"] / errors["PyTorch"] if errors["PyTorch"] > 0 else None
    (fine, small), (rough, large) = sorted(errors.items(), key=lambda item: item[1])
    stored, once = UNIT_ROUNDOFF[dtype] * _rms(truth), _rms(_rounded(truth, UNIT_ROUNDOFF[dtype]) - truth)
    if 2 * small < once:
        return Ratio(value, f"the precisions differ: {fine}'s result is kept in more than {dtype}")
    if truth.size < 2:
        return Ratio(value)
    if rounded is not None:
        stored = max(stored, _rms(np.asarray(rounded, np.float64)))
    chance = math.exp(DEVIATIONS * math.hypot(_deviation(ours), _deviation(theirs)))
    apart, allowed = large / max(small, stored, 1e-300), chance * limit(n, dtype, linear)
    if apart > allowed:
        why = f"{rough}'s errors are {apart:.3g} times {fine}'s, where the order of summation explains {allowed:.3g}"
        return Ratio(value, f"the precisions differ: {why}")
    if linear and dtype == "float32" and once > 0:
        terms = min(math.ceil(2 * (large / chance / once) ** 2 - 3), n)
        if terms > 2 and small * chance < math.sqrt(2 - 2 / terms) * once:
            return Ratio(value, f"the precisions differ: {fine} sums in more than float32, and rounds once")
    return Ratio(value)


def _rounded(values: NDArray, u: float) -> NDArray:
    """To the nearest numbers of the format with that unit roundoff."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction / u) * u, exponent)


def _rms(errors: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def _deviation(errors: NDArray) -> float:
    """Relative standard deviation of the root mean square of these errors."""
    squares = np.square(errors / max(float(np.max(np.abs(errors))), np.finfo(np.float64).tiny))
    mean = float(np.mean(squares))
    kurtosis = max(float(np.mean(np.square(squares))) / mean**2, 3.0) if mean > 0 else 3.0
    return math.sqrt((kurtosis - 1) / (errors.size - 1)) / 2
