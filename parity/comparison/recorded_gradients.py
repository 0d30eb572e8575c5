"""The reference's gradients as its records hold them, and what the candidate's may differ by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.bounds.magnitudes import Bound, linear_bound
from parity.candidate.jax_candidate import Candidate


def recorded_gradient(candidate: Candidate, key: str, name: str, shape: Any) -> Any:
    """A recorded gradient; zeros of `shape`, or None without one, where PyTorch made none."""
    if candidate.store.has(key, name):
        return candidate.store.array(key, name)
    return None if shape is None else np.zeros(shape)


def gradient_bound(candidate: Candidate, key: str, name: str, move: Callable) -> Bound | None:
    """What the gradient with respect to `name` may differ by, in Flax's layout."""
    store = candidate.store
    if store.has(key, f"magnitude.{name}"):
        n = store.facts(key)["n"][name]
        return linear_bound(n, move(store.array(key, f"magnitude.{name}")), candidate.dtype)
    return candidate.recorded_bound(key, f"error.{name}", store.facts(key)["n"].get(name, 0), move)
