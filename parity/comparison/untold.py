"""What a comparison leaves as it is, because one side alone has it."""

from __future__ import annotations

from parity.comparison.jax_candidate import Candidate
from parity.kinds import weights
from parity.kinds.normalization import STATISTICS


def only_in_flax(candidate: Candidate) -> list[str]:
    """Weights that a layer has in Flax alone: where it runs all the same, with whatever they hold."""
    if candidate.given is not None:
        return []  # told among the weights
    found = []
    for path in dict.fromkeys(visit.path for visit in candidate.visited.values()):
        names = {weights.flax_name(candidate.kinds[path], name) for name in candidate.weights(candidate.pairs[path])}
        # A norm may write running statistics without going by them; if it did, it would show: they begin as 0 and 1.
        written = {weight.flax for weight in STATISTICS}
        extra = sorted({*candidate.wanted(path)} - names - written)
        if extra and names:
            found.append(f"{path} has {', '.join(extra)} in Flax alone, which stays as it was made")
    return found
