"""One comparison of two arrays: how far apart, how far they may be, and where."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import (
    EQUAL,
    MISMATCH,
    NO_BOUND,
    Judgement,
    difference,
    judge,
    judge_without_bound,
)
from parity.bounds.magnitudes import Bound
from parity.bounds.ratio import error_ratio

# Order of the stages of one layer in the report, forward and backward.
STAGES = ("input", "weights", "forward", "backward")


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
        bound: what is allowed at that element; infinite where no bound is known.
        fraction: max_error / bound; more than 1 is a mismatch. Infinite where nothing was allowed.
        largest: largest difference of all elements, wherever it is allowed.
        ratio: RMSE of JAX over RMSE of PyTorch against float64, or None.
        verdict: `equal`, `no bound`, or what is wrong: `ratio`, or what `parity.bounds.judging` says.
        index: of the worst element, in Flax's layout.
        jax: the value there; likewise torch.
        flips: elements that fall on the other side of a kink at 0 (ReLU's), or None.
        order: place in the reference's execution.
        kind: of the layer; for the search for causes.
        detail: more to say, in words.
        echo: the layer whose input explains this one, which merely follows from it; empty if none does.
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
    echo: str = ""
    causes: list[str] = field(default_factory=list)
    cause_keys: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong here."""
        return self.verdict == EQUAL

    @property
    def open(self) -> bool:
        """Whether it can't be said how far the two sides may lie apart here, and they do."""
        return self.verdict == NO_BOUND

    @property
    def diverges(self) -> bool:
        """Whether something is wrong here: more than that nothing can be said."""
        return not (self.equal or self.open)

    def as_json(self) -> dict[str, Any]:
        """Plain types only; infinite and undefined numbers become null, which JSON can hold."""
        plain = asdict(self)
        for key in ("max_error", "bound", "fraction", "largest", "ratio", "jax", "torch"):
            if plain[key] is not None and not np.isfinite(plain[key]):
                plain[key] = None
        return plain


def told_in_order(rows: list[Row]) -> None:
    """Let the first of several rows that one mistake explains say so, and the others follow from it.

    Causes are looked for as JAX runs, rows stand as PyTorch does. Where two layers share the code before them, the one
    that JAX runs first was explained, and the other one found to follow from it, though it may come first here.
    """
    for place, row in enumerate(rows):
        if not (row.echo and row.diverges):
            continue
        later = (each for each in rows[place + 1 :] if each.name == row.echo and each.stage == row.stage)
        source = next((each for each in later if each.diverges and each.name != row.name), None)
        if source is None:
            continue
        if source.echo:  # of a row before this one
            row.echo = source.echo
        else:
            row.causes, row.cause_keys, row.echo = source.causes, source.cause_keys, ""
            source.causes, source.cause_keys, source.echo = [], [], row.name


def compare_arrays(
    row: Row,
    jax: NDArray | None,
    torch: NDArray | None,
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
    row.n = bound.n if bound else 0
    if bound is not None and bound.unknown:
        names = " and ".join(bound.unknown)
        why = (
            f"no error bound is known for {names}, which PyTorch ran here: register a rule with "
            f"parity.bounds.torch_rounding.register"
        )
        return fill(row, judge_without_bound(jax, torch, why))
    limit = np.zeros(()) if bound is None else np.asarray(bound.allowed, np.float64)
    fill(row, judge(jax, torch, limit) if np.isfinite(limit).all() else _judge_in_part(jax, torch, limit))
    told = row.verdict in (EQUAL, MISMATCH) and math.isfinite(row.largest)
    if told and jax is not None and torch is not None and truth is not None:
        linear, rounded = (False, None) if bound is None else (bound.linear, bound.rounded)
        ratio = error_ratio(jax, torch, truth, row.dtype, row.n, linear, rounded)
        row.ratio = ratio.value
        if row.equal and not ratio.ok:
            row.verdict, row.detail = "ratio", ratio.why
    return row


def _judge_in_part(jax: NDArray | None, torch: NDArray | None, limit: NDArray) -> Judgement:
    """Judge arrays whose bound isn't finite everywhere: where it isn't, only bit-for-bit equality says anything."""
    without = ~np.isfinite(limit)
    found = judge(jax, torch, np.where(without, np.inf, limit))
    if found.verdict != EQUAL or jax is None or torch is None:
        return found
    apart = np.where(without, difference(jax, torch), 0.0)
    if not apart.any():
        return found
    worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
    why = (
        f"where {np.count_nonzero(apart):,} of {apart.size:,} values differ, the error bound derived is infinite: what "
        "PyTorch ran magnifies roundings without limit there"
    )
    place = tuple(int(i) for i in worst)
    found = replace(found, verdict=NO_BOUND, detail=why, error=float(apart[worst]), allowed=math.inf, fraction=0.0)
    return replace(found, index=place, ours=_number(jax[place]), theirs=_number(torch[place]))


def _number(value: Any) -> float:
    """For the report; of a complex number its size."""
    return float(abs(value)) if np.iscomplexobj(value) else float(value)


def fill(row: Row, judgement: Judgement) -> Row:
    """Write what the judge says into a row."""
    row.verdict, row.detail, row.shape = judgement.verdict, judgement.detail or row.detail, judgement.shape
    row.max_error, row.bound, row.fraction = judgement.error, judgement.allowed, judgement.fraction
    row.largest, row.index = judgement.largest, judgement.index
    row.jax, row.torch = judgement.ours, judgement.theirs
    return row
