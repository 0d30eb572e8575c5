"""The one measure of a difference, and the one judge of it.

Everything that the harness compares (activations, weights, gradients, optimizer steps, whole runs, data, what a
benchmark computed) is judged here, in this order: is there anything on both sides, in the same shape, of the same kind
of number, finite everywhere, and within what is allowed.

NaN and infinity are never within a bound, not even where both sides have them: nothing can be concluded then. Nor is
what is missing: an absent tensor, or two arrays of no values, prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

EQUAL, MISMATCH, MISSING, SHAPE, DTYPE, NOT_FINITE = "equal", "mismatch", "missing", "shape", "dtype", "not finite"
NO_BOUND = "no bound"

Tensors = Mapping[str, NDArray]


@dataclass(frozen=True)
class Judgement:
    """What is to be said of two arrays.

    Attributes:
        verdict: `equal`, what is wrong (`mismatch`, `missing`, `shape`, `dtype`, `not finite`), or `no bound` where
            nothing can be said.
        detail: more of it, in words.
        error: difference where it is the largest part of what is allowed there, or in a norm; infinite where it can't
            be told.
        allowed: what is allowed there.
        fraction: error / allowed; more than 1 is a mismatch, and infinite where nothing was allowed.
        largest: largest difference of all elements, wherever it is allowed.
        shape: of the first array.
        index: of the element that `error` is of, or the farthest one of a tensor judged in a norm.
        ours: the value there; likewise theirs.
        name: of the tensor, where several were judged together.
    """

    verdict: str = EQUAL
    detail: str = ""
    error: float = 0.0
    allowed: float = 0.0
    fraction: float = 0.0
    largest: float = 0.0
    shape: tuple[int, ...] = ()
    index: tuple[int, ...] | None = None
    ours: float | None = None
    theirs: float | None = None
    name: str = ""

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong."""
        return self.verdict == EQUAL


def difference(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
    """|ours - theirs| element by element, of arrays of one shape; infinite wherever either side isn't finite."""
    a, b = np.asarray(ours), np.asarray(theirs)
    if _kind(a) == _kind(b) == "whole":
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
        return np.where(a != b, np.maximum(apart, 1.0), 0.0)  # beyond 2^53 float64 doesn't tell neighbours apart
    a, b = _wide(a), _wide(b)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)


def farthest(ours: NDArray | None, theirs: NDArray | None) -> float:
    """The largest difference of two arrays; infinite where it can't be told: see the module's text."""
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.size == 0:
        return math.inf
    return float(np.max(difference(ours, theirs)))


def distance(ours: NDArray, theirs: NDArray) -> float:
    """||ours - theirs|| in the Euclidean norm; infinite as `farthest` is."""
    if ours.shape != theirs.shape or ours.size == 0:
        return math.inf
    return float(np.linalg.norm(difference(ours, theirs)))


def normwise(ours: NDArray, theirs: NDArray) -> float:
    """||ours - theirs|| / ||theirs||; infinite as `farthest` is, and where something differs from nothing."""
    return share_used(distance(ours, theirs), _norm(theirs))


def share_used(error: float, allowed: float) -> float:
    """The part of what is allowed that an error uses: 0 for no error, infinite where that can't be told."""
    if error == 0:
        return 0.0
    if not math.isfinite(error) or not allowed > 0:
        return math.inf
    return error / allowed


def between_forms(forms: Sequence[tuple[NDArray, NDArray]]) -> float:
    """How far numbers lie from what formulas give that one side doesn't keep to, as a share of their norm.

    Args:
        forms: the formulas' numbers and the side's own, of several arrays. If any isn't finite nothing is known, and
            nothing allowed: 0.
    """
    apart = math.hypot(*(distance(exact, given) for exact, given in forms))
    share = share_used(apart, math.hypot(*(_norm(given) for _, given in forms)))
    return share if math.isfinite(share) else 0.0


def within(error: float, allowed: float) -> bool:
    """Whether an error is finite, and no larger than what is allowed."""
    return math.isfinite(error) and error <= allowed


def judge(ours: ArrayLike | None, theirs: ArrayLike | None, allowed: ArrayLike = 0.0) -> Judgement:
    """Compare two arrays element by element.

    Args:
        ours: JAX's; None if there is none.
        theirs: PyTorch's, in the same layout.
        allowed: the largest difference, absolute, for all elements or each; by default not one bit.
    """
    if (wrong := _incomparable(ours, theirs)) is not None:
        return wrong
    a, b = np.asarray(ours), np.asarray(theirs)
    apart = difference(a, b)
    limit = np.broadcast_to(np.asarray(allowed, np.float64), apart.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fraction = np.where(apart == 0, 0.0, apart / limit)
    fraction = np.where(np.isfinite(apart) & (fraction >= 0), fraction, np.inf)
    # Where both sides hold the same NaN or infinity neither is to blame: it is told only if nothing else is wrong.
    alike = np.isinf(apart) & _same(a, b) if np.isinf(apart).any() else np.zeros((), np.bool_)
    blamed = np.where(alike, 0.0, fraction)
    mismatch = bool((blamed > 1).any())
    worst = _worst(blamed, np.where(alike, 0.0, apart)) if mismatch else _worst(fraction, apart)
    found = Judgement(
        EQUAL,
        "",
        float(apart[worst]),
        float(limit[worst]),
        float(fraction[worst]),
        float(np.max(apart)),
        tuple(a.shape),
        tuple(int(i) for i in worst),
        _value(a[worst]),
        _value(b[worst]),
    )
    if mismatch:
        return replace(found, verdict=MISMATCH, detail=_not_finite(a, b))
    if alike.any():
        return replace(found, verdict=NOT_FINITE, detail="both sides hold NaN or infinity: nothing can be concluded")
    return found


def judge_without_bound(ours: ArrayLike | None, theirs: ArrayLike | None, why: str) -> Judgement:
    """Judge two arrays of which nobody knows how far they may lie apart: alike, different in kind, or `no bound`.

    Args:
        ours: JAX's; None if there is none.
        theirs: PyTorch's.
        why: there is no bound, in words.
    """
    found = judge(ours, theirs, 1.0)  # whatever the limit, the same for all elements: the farthest one is the worst
    if found.verdict not in (EQUAL, MISMATCH) or found.largest == 0 or not math.isfinite(found.largest):
        return found
    return replace(found, verdict=NO_BOUND, detail=why, allowed=math.inf, fraction=0.0)


def judge_value(error: float, allowed: float) -> Judgement:
    """Judge a distance that was measured elsewhere; one that isn't finite is a mismatch."""
    return Judgement(
        EQUAL if within(error, allowed) else MISMATCH,
        "" if math.isfinite(error) else "it can't be told how far apart",
        error,
        allowed,
        share_used(error, allowed),
        error,
    )


def judge_worst(ours: Tensors, theirs: Tensors, allowed: float) -> Judgement:
    """Compare tensors of the same names one by one, each relative to its own norm; gives the one that is worst.

    Args:
        ours: JAX's.
        theirs: PyTorch's.
        allowed: the largest normwise difference of each.
    """
    if (wrong := _different_names(ours, theirs)) is not None:
        return wrong
    found = [replace(_judge_norm(ours[name], theirs[name], allowed), name=name) for name in theirs]
    return max(found, key=lambda j: (not j.equal, j.fraction, j.error))


def judge_together(ours: Tensors, theirs: Tensors, allowed: float) -> Judgement:
    """Compare tensors of the same names as one long vector: the difference's norm over that of all of `theirs`."""
    if (wrong := _different_names(ours, theirs)) is not None:
        return wrong
    for name in theirs:
        single = judge(ours[name], theirs[name], math.inf)
        if not single.equal:
            detail = ": ".join(part for part in (name, single.detail) if part)
            return replace(single, name=name, detail=detail, allowed=allowed, fraction=math.inf)
    apart = math.hypot(*(distance(ours[name], theirs[name]) for name in theirs))
    return judge_value(share_used(apart, math.hypot(*(_norm(b) for b in theirs.values()))), allowed)


def _judge_norm(ours: NDArray, theirs: NDArray, allowed: float) -> Judgement:
    """Normwise, with the place of the farthest element."""
    place = _incomparable(ours, theirs)
    apart = difference(ours, theirs) if place is None else np.full((1,), np.inf)
    worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
    if not math.isfinite(apart[worst]):
        return replace(place or judge(ours, theirs, math.inf), allowed=allowed, fraction=math.inf)
    by_norm = judge_value(share_used(float(np.linalg.norm(apart)), _norm(theirs)), allowed)
    return replace(
        by_norm,
        shape=tuple(ours.shape),
        index=tuple(int(i) for i in worst),
        ours=_value(ours[worst]),
        theirs=_value(theirs[worst]),
    )


def missing(detail: str) -> Judgement:
    """Of what one side lacks."""
    return Judgement(MISSING, detail, error=math.inf, fraction=math.inf, largest=math.inf)


def _incomparable(ours: ArrayLike | None, theirs: ArrayLike | None) -> Judgement | None:
    if ours is None or theirs is None:
        absent = [side for side, array in (("JAX", ours), ("PyTorch", theirs)) if array is None]
        return missing(f"{' and '.join(absent)} {'has' if len(absent) == 1 else 'have'} nothing here")
    a, b = np.asarray(ours), np.asarray(theirs)
    unequal = Judgement(fraction=math.inf, error=math.inf, largest=math.inf, shape=tuple(a.shape))
    if a.shape != b.shape:
        return replace(unequal, verdict=SHAPE, detail=f"Flax {a.shape}, PyTorch {b.shape}")
    if a.size == 0:
        return replace(unequal, verdict=MISSING, detail="there are no values to compare")
    if _kind(a) != _kind(b):
        return replace(unequal, verdict=DTYPE, detail=f"Flax {a.dtype}, PyTorch {b.dtype}")
    return None


def _different_names(ours: Tensors, theirs: Tensors) -> Judgement | None:
    for side, has, lacks in (("PyTorch", theirs, ours), ("JAX", ours, theirs)):
        alone = [name for name in has if name not in lacks]
        if alone:
            return replace(missing(f"{side} alone has {', '.join(alone)}"), name=alone[0])
    return None if theirs else missing("there are no tensors to compare")


def _worst(fraction: NDArray, apart: NDArray) -> tuple[int, ...]:
    """Where most of the bound is used; where several break it without end, the largest difference."""
    broken = np.isinf(fraction)
    score = np.where(broken, apart, -1.0) if broken.any() else fraction
    return tuple(np.unravel_index(int(np.argmax(score)), score.shape))  # type: ignore[return-value]


def _kind(array: NDArray) -> str:
    """Whole numbers, floating-point numbers or complex ones: bfloat16 is none of NumPy's own kinds."""
    return {"b": "whole", "i": "whole", "u": "whole", "c": "complex"}.get(array.dtype.kind, "float")


def _wide(array: NDArray) -> NDArray:
    return np.asarray(array, np.complex128 if _kind(array) == "complex" else np.float64)


def _same(a: NDArray, b: NDArray) -> NDArray[np.bool_]:
    """Where both hold the same NaN or infinity, or the same number."""
    a, b = _wide(a), _wide(b)
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _not_finite(ours: NDArray, theirs: NDArray) -> str:
    """Who holds what isn't finite, in words; empty where all is."""
    counts = {side: int((~np.isfinite(_wide(a))).sum()) for side, a in (("JAX", ours), ("PyTorch", theirs))}
    told = [f"{count:,} of {ours.size:,} values of {side}" for side, count in counts.items() if count]
    return f"not finite: {' and '.join(told)}" if told else ""


def _norm(array: NDArray) -> float:
    return float(np.linalg.norm(_wide(array)))


def _value(number: NDArray) -> float:
    """For the report; of a complex number its size."""
    return float(abs(number)) if _kind(np.asarray(number)) == "complex" else float(number)
