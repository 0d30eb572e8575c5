"""The candidate at exact zeros and ties, beside the reference's run there: see `parity.reference.torch_ties`."""

from __future__ import annotations

import math

from numpy.typing import NDArray

from parity.candidate import jax_backward
from parity.candidate.jax_candidate import Candidate
from parity.comparison.matching import Pairing
from parity.comparison.store import Store
from parity.reports.rows import Row


def run(natural: Candidate, inputs: tuple[NDArray, ...]) -> tuple[list[Row], list[str]]:
    """Compare forward and backward at ties; after the natural run, whose layouts and compiled layers are used again.

    Returns:
        Rows of every layer that isn't linear, and of the code between the layers where it computes anything or differs;
        and what couldn't be compared, in words.
    """
    store = Store(natural.store.directory / "ties")
    if not store.exists("complete"):
        why = store.facts("abandoned")["why"] if store.exists("abandoned") else "the reference wasn't run there"
        return [], [f"gradients at exact zeros and ties: {why}"]
    candidate = Candidate(
        natural.model,
        natural.kwargs,
        natural.leaves,
        Pairing(natural.pairs, kinds=natural.kinds),
        store,
        natural.dtype,
        natural.weights,
        natural.given,
        natural.name,
    )
    candidate.placeholders, candidate.variables = natural.placeholders, natural.variables
    candidate.natural, candidate.judged, candidate.masks = natural, set(natural.pairs), natural.masks
    candidate.compiled, candidate.calls = natural.compiled, natural.calls.again()
    candidate.forward(inputs)
    jax_backward.run(candidate, inputs)
    between, chosen = (store.facts("complete")[name] for name in ("between", "chosen"))
    kept, undefined = [], []
    for row in candidate.rows:
        if chosen and row.stage.startswith(("input", "cotangent")):
            continue  # which of equal values is chosen is no convention
        if row.torch is not None and not math.isfinite(row.torch):
            undefined.append(f"{row.name} {row.stage}")
        elif not row.equal or between or not row.stage.startswith(("input", "cotangent")):
            kept.append(row)
    if any(row.diverges for row in kept) and not any(row.diverges for row in natural.rows):
        natural.worst = candidate.worst
    told = [f"PyTorch has infinite or undefined values in {', '.join(undefined)}"] if undefined else []
    return kept, told
