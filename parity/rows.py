"""One comparison of two arrays: how far apart, how far they may be, and where."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds import Bound
from parity.ratio import error_ratio

# Order of the stages of one layer in the report, forward and backward.
STAGES = ("input", "weights", "forward", "backward")

EQUAL = "equal"


@dataclass
class Row:
    """One line of the report.

    Attributes:
        model: name of the pair of models.
        name: path of the layer in the Flax model (`output` and `end to end` for the whole).
        torch_name: its path in the PyTorch model.
        stage: `input` (the code before the layer), `weights`, `forward`, `backward` (with respect to the input),
            `backward:NAME` (with respect to a parameter), `cotangent` (the code after the layer, backward).
        dtype: of the lane.
        shape: of the compared array, in Flax's layout.
        n: roundings in a row that the bound allows for.
        max_error: difference at the worst element: where it is the largest part of what is allowed there.
        bound: what is allowed at that element.
        fraction: max_error / bound; more than 1 is a mismatch. Infinite where nothing was allowed.
        largest: largest difference of all elements, wherever it is allowed.
        ratio: RMSE of JAX over RMSE of PyTorch against float64, or None.
        verdict: `equal`, or what is wrong: `mismatch`, `ratio`, `shape`, `dtype`, `missing`, `not finite`.
        index: of the worst element, in Flax's layout.
        jax: the value there; likewise torch.
        flips: elements that fall on the other side of a kink at 0 (ReLU's), or None.
        order: place in the reference's execution.
        kind: of the layer; for the search for causes.
        detail: more to say, in words.
        causes: bugs that explain it, shown by a counterfactual, in words; likewise cause_keys, their short names.
    """

    model: str
    name: str
    torch_name: str
    stage: str
    dtype: str
    shape: tuple[int, ...] = ()
    n: int = 0
    max_error: float = 0.0
    bound: float = 0.0
    fraction: float = 0.0
    largest: float = 0.0
    ratio: float | None = None
    verdict: str = EQUAL
    index: tuple[int, ...] | None = None
    jax: float | None = None
    torch: float | None = None
    flips: int | None = None
    order: int = 0
    kind: str = ""
    detail: str = ""
    causes: list[str] = field(default_factory=list)
    cause_keys: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong here."""
        return self.verdict == EQUAL

    def as_json(self) -> dict[str, Any]:
        """Plain types only; infinite and undefined numbers become null, which JSON can hold."""
        plain = asdict(self)
        for key in ("max_error", "bound", "fraction", "largest", "ratio", "jax", "torch"):
            if plain[key] is not None and not np.isfinite(plain[key]):
                plain[key] = None
        return plain


def compare_arrays(
    row: Row,
    jax: NDArray,
    torch: NDArray,
    bound: Bound | None,
    truth: NDArray | None = None,
) -> Row:
    """Fill in a row from both sides' arrays, all in one layout.

    Args:
        row: says what is compared; completed in place.
        jax: the candidate's array.
        torch: the reference's.
        bound: None if nothing but bit-for-bit equality will do.
        truth: float64 result of the same inputs and weights, for the ratio.

    Returns:
        The row.
    """
    row.shape = tuple(jax.shape)
    if jax.shape != torch.shape:
        row.verdict, row.fraction = "shape", float("inf")
        row.detail = f"Flax {jax.shape}, PyTorch {torch.shape}"
        return row
    row.n = bound.n if bound else 0
    if jax.size == 0:
        return row
    a, b = np.asarray(jax, np.float64), np.asarray(torch, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    allowed = np.zeros_like(b) if bound is None else np.broadcast_to(bound.allowed, b.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fraction = np.where(difference == 0, 0.0, difference / allowed)
    fraction = np.where(np.isnan(fraction), np.inf, fraction)
    worst = _worst(fraction, difference)
    row.largest, row.max_error = float(difference.max()), float(difference[worst])
    row.fraction, row.bound = float(fraction[worst]), float(allowed[worst])
    row.index = tuple(int(i) for i in worst)
    row.jax, row.torch = float(a[worst]), float(b[worst])
    if row.fraction > 1:
        row.verdict = "mismatch"
    elif not np.isfinite(b).all():
        row.verdict = "not finite"
        row.detail = "both sides hold NaN or infinity: nothing can be concluded"
    if truth is not None and row.verdict != "not finite":
        ratio = error_ratio(a, b, truth, row.dtype, row.n, linear=bound is not None and bound.linear)
        row.ratio = ratio.value
        if row.equal and not ratio.ok:
            row.verdict, row.detail = "ratio", ratio.why
    return row


def _worst(fraction: NDArray, difference: NDArray) -> tuple[int, ...]:
    """Where most of the bound is used; where several break it without end, the largest difference."""
    broken = np.isinf(fraction)
    score = np.where(broken, difference, -1.0) if broken.any() else fraction
    return tuple(np.unravel_index(int(np.argmax(score)), score.shape))  # type: ignore[return-value]
