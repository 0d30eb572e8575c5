"""The candidate's half of a comparison from its first leaf to its report, once the reference is captured."""

from __future__ import annotations

import jax
from numpy.typing import NDArray

from parity.candidate import jax_backward, jax_precision, jax_ties
from parity.candidate.jax_candidate import Candidate
from parity.causes.between import inputs as input_causes
from parity.comparison import end_to_end
from parity.comparison.not_exercised import not_exercised
from parity.kinds.leaf import Leaf
from parity.reports.report import Report


def run(
    candidate: Candidate,
    inputs: tuple[NDArray, ...],
    gradients: bool,
    torch_leaves: list[Leaf],
    whole: bool = True,
) -> Report:
    """The candidate's half of a comparison, once the reference's captures lie in its store.

    Args:
        candidate: prepared, not yet run.
        inputs: in Flax's layout.
        gradients: compare backward passes too; they must have been captured.
        torch_leaves: the reference's structure.
        whole: run from end to end as well.
    """
    candidate.forward(inputs)
    input_causes.narrow(candidate, candidate.rows)
    if candidate.unexplained and candidate.failed is None:
        input_causes.name_coarse(candidate, jax_precision.between_layers(candidate, inputs))
    ran = candidate.failed is None and candidate.broken is None
    gradients, whole = gradients and ran, whole and ran
    told: list[str] = []
    if gradients:
        jax_backward.run(candidate, inputs)
    comparable = all(row.verdict not in ("shape", "missing") for row in candidate.rows)
    if gradients and comparable:
        at_ties, told = jax_ties.run(candidate, inputs)
        candidate.rows += at_ties
    if whole and comparable:
        candidate.rows += end_to_end.run(candidate, inputs, gradients)
    report = Report(candidate.rows, not_exercised(candidate, torch_leaves) + told)
    report.arrays, report.arrays_of = candidate.worst.arrays, candidate.worst.row
    report.settings = {"dtype": candidate.dtype, "jax": jax.__version__, "backend": jax.default_backend()}
    return report
