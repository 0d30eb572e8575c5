"""Which PyTorch layer is which Flax layer, where kinds and shapes leave it open: by what both are given.

Layers of one kind and shape that run on different values are told apart by these. What is given the same, such as a
gate beside what it gates, is told apart by its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.comparison.layer_names import alike
from parity.comparison.store import Store
from parity.errors import LayersUnseen
from parity.kinds import layouts

# A mistake in the code before a layer may move its input, but hardly as far as other layers' inputs are.
_NEARER = 10.0


def choose(store: Store, path: str, x: NDArray, open_records: dict[str, str], likely: str | None = None) -> str:
    """The PyTorch path that belongs to a Flax layer.

    Args:
        store: the reference's records.
        path: of the Flax layer.
        x: its first input.
        open_records: key of the first call's record, by PyTorch path, of all that it may still be, in order of
            execution.
        likely: the one that the order of all layers tells, if it does.

    Returns:
        The one whose input is nearest; where a mistake before the layer moved its input so far that none is, the likely
        one, or the one that runs first.

    Raises:
        LayersUnseen: several are given the same, and names don't tell them apart.
    """
    apart = {
        torch_path: _distance(store.array(key, "input.0"), x, store.facts(key)["ops"])
        for torch_path, key in open_records.items()
    }
    if not apart:
        raise LayersUnseen(f"{path} (Flax) has no partner left: say which it is with mapping={{{path!r}: ...}}")
    nearest = min(apart.values())
    tied = [torch_path for torch_path, distance in apart.items() if distance <= _NEARER * nearest]
    if likely in tied:
        return likely
    if len(tied) == 1:
        return tied[0]
    same = [p for p in tied if _same(store, open_records[tied[0]], open_records[p])]
    if len(same) == 1:
        return tied[0]  # as far from all of them: the order of execution remains
    named = [torch_path for torch_path in same if alike(path, torch_path)]
    if named or len({torch_path.rpartition(".")[2] for torch_path in same}) == 1:
        return (named or same)[0]  # one in each block, say: the order of execution remains
    raise LayersUnseen(
        f"{path} (Flax) could be PyTorch {', '.join(same)}, which are all given the same: say which it is with "
        f"mapping={{{path!r}: {same[0]!r}, ...}}"
    )


def _distance(reference: NDArray, x: NDArray, operations: list[Any]) -> float:
    """Root mean square of the difference, in the likeliest layout; infinite where the shapes don't fit."""
    layout = layouts.align(reference, np.asarray(x, np.float64), None)
    layout = layout or layouts.without_padding(reference, x.shape, operations)
    if layout is None:
        return float("inf")
    apart = layout.to_flax(np.asarray(reference, np.float64)) - np.asarray(x, np.float64)
    return float(np.sqrt(np.mean(np.square(apart)))) if np.all(np.isfinite(apart)) else float("inf")


def _same(store: Store, one: str, other: str) -> bool:
    return one == other or np.array_equal(store.array(one, "input.0"), store.array(other, "input.0"))
