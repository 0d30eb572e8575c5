"""What a comparison could not have noticed, in words: a report says it beside what was compared."""

from __future__ import annotations

import numpy as np

from parity.candidate.jax_candidate import Candidate
from parity.kinds import parameter, registry, weights
from parity.kinds.leaf import Leaf
from parity.kinds.normalization import STATISTICS


def not_exercised(candidate: Candidate, torch_leaves: list[Leaf]) -> list[str]:
    """What this comparison could not have noticed, in words."""
    found = []
    if candidate.failed is not None:
        place = candidate.failed["path"] or f"the code after {candidate.failed['after']}"
        found.append(f"everything from {place} on, where PyTorch breaks down: {candidate.failed['message']}")
    elif candidate.broken is not None:
        last = max(candidate.visited, default=None)
        place = "the beginning" if last is None else candidate.visited[last].path
        found.append(f"everything behind {place}, where Flax breaks down on PyTorch's values: {candidate.broken}")
    paths = {path for path, _ in candidate.records}
    biased = [x.path for x in torch_leaves if registry.named(x.kind).linear and "bias" in x.shapes]
    found += _only_in_flax(candidate)
    zero = [path for path in biased if path in paths and not np.any(candidate.weights(path)["bias"])]
    if zero:
        found.append(f"biases of zeros, where one left out would not show: {', '.join(zero)}")
    layers = [x for x in torch_leaves if x.shapes and x.kind != parameter.KIND.name]
    found += [f"{x.path} has parameters but never ran" for x in layers if x.path not in paths]
    frozen = _frozen(candidate, [x.path for x in torch_leaves if x.shapes])
    if frozen:
        found.append(f"gradients of parameters that PyTorch doesn't train (requires_grad is off): {', '.join(frozen)}")
    for (path, _), key in candidate.records.items():
        if candidate.store.has(key, "output.0") and not np.any(candidate.store.array(key, "output.0")):
            found.append(f"{path} gives nothing but zeros: what follows can't be judged")
    return found


def _frozen(candidate: Candidate, paths: list[str]) -> list[str]:
    """Parameters without a gradient in a PyTorch model that trains others; none if it trains none at all."""
    store = candidate.store
    records = {p: store.facts(f"parameters-{p}") for p in paths if store.exists(f"parameters-{p}")}
    frozen = [f"{path}.{name}" for path, facts in records.items() for name in facts["frozen"]]
    return frozen if len(frozen) < sum(len(facts["shapes"]) for facts in records.values()) else []


def _only_in_flax(candidate: Candidate) -> list[str]:
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
