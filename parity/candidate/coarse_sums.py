"""Gradients that JAX adds up in the lane's own half precision, an addition at a time.

The gradient of what is broadcast, a bias above all, is the sum of what reaches its copies. JAX's autodiff writes that
as `reduce_sum` in the dtype of the activations, where PyTorch adds in float32 and rounds once. Both are right; but each
of JAX's additions rounds its partial sum to the lane's format, which the bounds of sums of products don't count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest
from parity.bounds.magnitudes import UNIT_ROUNDOFF, Bound
from parity.bounds.ratio import DEVIATIONS, squared_partial_sums
from parity.candidate.jax_arrays import DTYPES
from parity.candidate.jax_precision import equations
from parity.causes.cause import Cause

HALVES = ("bfloat16", "float16")


def found(function: Callable, arguments: tuple[Any, ...], dtype: str) -> set[tuple[int, ...]]:
    """Shapes of the results of every `reduce_sum` in a half precision that a function contains; none in other lanes.

    Args:
        function: what is traced, never run.
        arguments: arrays, or their shapes and dtypes.
        dtype: of the lane.
    """
    if dtype not in HALVES:
        return set()
    sums = (
        each for each in equations(jax.make_jaxpr(function)(*arguments).jaxpr) if "reduce_sum" in each.primitive.name
    )
    return {_alone(each.outvars[0].aval.shape) for each in sums if each.invars[0].aval.dtype.name == dtype}


def counted(bound: Bound, gradient: NDArray, cotangent: NDArray, sums: set[tuple[int, ...]], dtype: str) -> Bound:
    """The bound of a gradient with the roundings of such a sum, if it is one: four standard deviations of them.

    Where a format has fewer bits than the sum has terms (from 1 / u on, 256 in bfloat16) it may stop growing, and
    roundings aren't independent: then the bound stays as it is, and only the ratio of errors allows for them.

    Args:
        bound: without them.
        gradient: JAX's, of the parameter.
        cotangent: of the layer's output, in JAX's layout, whose last axes are the parameter's.
        sums: see `found`.
        dtype: of the lane.
    """
    terms = _terms(gradient, cotangent, sums)
    if terms is None or not bound.linear:
        return bound
    deviation = UNIT_ROUNDOFF[dtype] * np.sqrt(squared_partial_sums(len(terms), terms.mean(0), terms.var(0)))
    more = DEVIATIONS * deviation if len(terms) * UNIT_ROUNDOFF[dtype] < 1 else 0.0
    return replace(bound, allowed=bound.allowed + more, rounded=deviation)


def explain(
    gradient: NDArray, reference: NDArray, cotangent: NDArray, sums: set[tuple[int, ...]], dtype: str
) -> list[Cause]:
    """The cause of a gradient's difference, if one addition after another in the lane's format errs as much.

    Args:
        gradient: JAX's, of the parameter.
        reference: PyTorch's, in the same layout.
        cotangent: see `counted`; likewise sums and dtype.
        sums: see `cotangent`.
        dtype: see `cotangent`.
    """
    terms = _terms(gradient, cotangent, sums)
    if terms is None:
        return []
    total = np.zeros(gradient.shape, DTYPES[dtype])
    for term in terms.astype(DTYPES[dtype]):
        total = total + term
    exact = terms.sum(0)
    before, theirs = (
        farthest(np.asarray(gradient, np.float64), exact),
        farthest(np.asarray(reference, np.float64), exact),
    )
    errs = farthest(np.asarray(total, np.float64), exact)
    if not theirs < before <= 2 * errs:
        return []
    text = (
        f"adds {len(terms):,} terms up in {dtype} (reduce_sum), which may stop growing: in float64 PyTorch's sum "
        f"errs by {theirs:.1e}, JAX's by {before:.1e}, one addition after another in {dtype} by {errs:.1e}"
    )
    return [Cause(dtype, "jax", text)]


def _terms(gradient: NDArray, cotangent: NDArray, sums: set[tuple[int, ...]]) -> NDArray | None:
    """What is added up, terms first; None if the gradient is no such sum."""
    shape = gradient.shape
    if _alone(shape) not in sums or cotangent.shape[cotangent.ndim - len(shape) :] != shape:
        return None
    return np.asarray(cotangent, np.float64).reshape(-1, *shape)


def _alone(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of one."""
    return tuple(n for n in shape if n != 1)
