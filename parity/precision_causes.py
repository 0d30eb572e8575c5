"""Naming a precision: one side rounded its inputs to a coarser format before it multiplied.

The rounding is undone by making the exact result round in the same way. float32 itself leaves errors of a few
thousandths of TF32's behind, so a thousandfold fall can't be asked for here. Instead what is left must be no more
than what the other side errs by in float32 (twice its root mean square), after a fall of a hundred at least.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from parity import hypotheses
from parity.causes import Case, Cause, explains

FALL = 100.0


def _kept_bits(bits: int) -> Callable[[NDArray], NDArray]:
    """Round a float32 significand to so many bits behind the point, to the nearest."""
    cut = 23 - bits
    half, mask = np.uint32(1 << (cut - 1)), np.uint32(0xFFFFFFFF ^ ((1 << cut) - 1))

    def rounded(x: NDArray) -> NDArray:
        return ((np.asarray(x, np.float32).view(np.uint32) + half) & mask).view(np.float32).astype(np.float64)

    return rounded


FORMATS: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
    "tf32": ("TF32", _kept_bits(10)),
    "bfloat16": ("bfloat16", _kept_bits(7)),
    "float16": ("float16", lambda x: np.asarray(x, np.float32).astype(np.float16).astype(np.float64)),
}


def explain(case: Case) -> list[Cause]:
    """Causes of a divergence of the float32 lane, by side; none in other lanes or for layers without weights."""
    parts = hypotheses.parts_of(case.class_name, case.settings, case.x, case.torch_weights)
    if case.dtype != "float32" or parts is None or parts.get("weight") is None:
        return []
    exact = hypotheses.compute(parts)
    if not exact.shape == case.torch_y.shape == case.flax_y.shape:
        return []
    for side, coarse, fine in (("jax", case.flax_y, case.torch_y), ("torch", case.torch_y, case.flax_y)):
        before, usual = _rms(coarse - exact), _rms(fine - exact)
        for key, (name, rounded) in FORMATS.items():
            with np.errstate(over="ignore", invalid="ignore"):
                lowered = parts | {"x": rounded(parts["x"]), "weight": rounded(parts["weight"])}
            after = _rms(coarse - hypotheses.compute(lowered))
            if explains(before, after, 2 * usual, FALL):
                text = f"inputs and weights are rounded to {name} before they are multiplied"
                return [Cause(key, side, text, before, after)]
    return []


def _rms(x: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
