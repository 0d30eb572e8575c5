"""How far two correct implementations of one layer may lie apart: derived, never tuned.

Notation: u is the unit roundoff (half the spacing of floating-point numbers near 1), gamma_n = n u / (1 - n u)
bounds the relative error of n roundings in a row (Higham, "Accuracy and Stability of Numerical Algorithms",
lemma 3.1). A dot product of m terms plus a bias puts each term through at most n = m + 1 roundings whatever the
order of summation, so its error is at most gamma_n (|x| * |w| + |b|), where |x| * |w| is the same layer run on
absolute values (section 3.1 there).

Three lanes use it:

* A, float64: |difference| <= gamma_n (|x| * |w| + |b|). Two orders of summation may in theory differ by twice
  that, if all roundings of each side point the same way. Roundings behave like random ones: each side errs by at
  most 4 sqrt(n) u (|x| * |w| + |b|) but once in 1500 values, and by far less where the terms differ in size
  (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019, theorem 2.4, lambda = 4), and
  8 sqrt(n) <= n from n = 64 on. Shorter sums get the certain bound, 2 gamma_n.
* B, float32: 2 gamma_{n+1} (|x| * |w| + |b|), which no order of summation can exceed, fused or not.
* bfloat16: products of bfloat16 numbers are exact in float32 and summed there, and the result is rounded to
  bfloat16 once or twice (once more if the bias is added to a rounded sum): each side errs by at most
  (gamma_{n+1}(float32) + 2 u_bfloat16) (|x| * |w| + |b|). Accumulation in bfloat16 itself breaks this bound.

Layers that aren't linear in their input (norms, averages, elementary functions) get the running error bound of
`parity.bounds.torch_rounding`: the sum of the roundings that the reference really made, each carried through the
operations after it. Both sides may err by that much, hence twice the bound in every lane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}

# Running bounds are kept to first order in u; products of two roundings are smaller by n u, which is below
# 2% for n <= 300,000 in float32 and for every n met here in float64.
_SECOND_ORDER = 1.02

# parity.md's end-to-end requirement for float64, 1e-11 normwise, as a number of roundings: other precisions
# are held to the same number. It is an amplification of 9e4 u through a whole network.
END_TO_END_ROUNDINGS = 1e-11 / UNIT_ROUNDOFF["float64"]

# So many of bfloat16's would be 350 times the result itself: zeros, or the wrong sign, would pass. A vector within this
# much of another one is at most 45 degrees from it.
_HALF_A_RIGHT_ANGLE = 2.0**-0.5


# From here on 2 * 4 sqrt(n) <= n: the single bound holds for the difference of two sides as well.
_LONG_SUM = 64

# Roundings that an elementary function (exp, log, tanh, powers) is allowed, 4 ulp = 8 u a side. PyTorch's SLEEF kernels
# promise 1 ulp; XLA's polynomials promise nothing, and its tanh takes 4.6 u: that both stay within is measured in
# tests/test_parity_bounds.py.
ELEMENTARY = 8


def unit_roundoff(dtype: str) -> float:
    """The unit roundoff of `dtype`, by name."""
    return UNIT_ROUNDOFF[dtype]


def gamma(n: float, u: float) -> float:
    """gamma_n = n u / (1 - n u), the relative error bound of n roundings; infinite if n u >= 1."""
    return n * u / (1 - n * u) if n * u < 1 else float("inf")


@dataclass(frozen=True)
class Bound:
    """The largest difference allowed, element by element.

    Attributes:
        n: roundings in a row that it allows for.
        allowed: array of the output's shape, absolute.
        linear: whether it is that of a sum of products.
        unknown: operations for want of whose rules there is no bound; `allowed` says nothing then.
        rounded: standard deviations of what a side's own additions in the lane's format round off, for the ratio.
    """

    n: int
    allowed: NDArray[np.float64]
    linear: bool = False
    unknown: tuple[str, ...] = ()
    rounded: NDArray[np.float64] | None = None


def linear_bound(n: int, magnitude: NDArray, dtype: str) -> Bound:
    """The bound of a layer that is linear in its input and in its weights.

    Args:
        n: terms summed for one output, bias included.
        magnitude: |x| * |w| + |b|, of the output's shape, computed in float64.
        dtype: lane: `float64` (A), `float32` (B) or `bfloat16`.
    """
    magnitude = np.asarray(magnitude, np.float64)
    if dtype == "float64":
        factor = gamma(n, UNIT_ROUNDOFF["float64"]) * (1 if n >= _LONG_SUM else 2)
    elif dtype in ("bfloat16", "float16"):
        factor = 2 * (gamma(n + 1, UNIT_ROUNDOFF["float32"]) + 2 * UNIT_ROUNDOFF[dtype])
    else:
        factor = 2 * gamma(n + 1, UNIT_ROUNDOFF[dtype])
    return Bound(n, factor * magnitude, linear=True)


def running_bound(n: int, error: NDArray) -> Bound:
    """The bound of anything else: twice the running error bound `error` (absolute) of the reference."""
    return Bound(n, 2 * _SECOND_ORDER * np.asarray(error, np.float64))


def no_bound(unknown: Sequence[str]) -> Bound:
    """Where operations ran of which no bound is known, by their names."""
    return Bound(0, np.zeros(()), unknown=tuple(unknown))


def normwise_limit(dtype: str) -> float:
    """Largest relative normwise difference of a whole network's outputs or gradients, end to end."""
    return min(END_TO_END_ROUNDINGS * UNIT_ROUNDOFF[dtype], _HALF_A_RIGHT_ANGLE)
