"""`parity layers` and `parity grads`: every layer of this repository's networks, both sides, one by one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity import comparison, jax_leaves, matching, pairs, torch_backward, torch_side
from parity.jax_side import Candidate
from parity.report import Report
from parity.store import Store

# float32: libraries multiply fewer than four rows with kernels of another summation order, see `bounds`.
BATCH = {"float64": 2, "float32": 4, "bfloat16": 4}


def compare_pair(
    pair: pairs.Pair, images: NDArray, *, gradients: bool = False, seed: int = 0, workspace: Path | None = None
) -> Report:
    """Compare both sides of one network.

    Args:
        pair: both sides; the PyTorch module may carry forward and backward hooks' traces afterwards, no more.
        images: (batch, 3, height, width), float.
        gradients: compare backward passes too.
        seed: of the cotangent.
        workspace: where captures go and stay; a temporary directory if None.
    """
    ours = comparison.to_flax(images)
    leaves, _ = jax_leaves.structure(pair.flax_module, (comparison.cast(ours, pair.dtype),), {})
    reference = torch_side.structure(pair.torch_module)
    chosen = matching.match(leaves, reference)
    directory = workspace or Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        store = Store(directory)
        torch_side.pin_precision()
        capture = torch_side.Capture(pair.torch_module, store, pair.dtype, set(chosen.values()))
        tensors = torch_side.as_tensors((images,), pair.dtype)
        if gradients:
            torch_backward.run(capture, tensors, seed=seed)
        else:
            capture.forward(tensors)
        candidate = Candidate(
            pair.flax_module, {}, chosen, {x["path"]: x["kind"] for x in leaves}, store, pair.dtype,
            torch_side.weights_reader(pair.torch_module), pair.variables, pair.name,
        )  # fmt: skip
        return comparison.finish(candidate, (ours,), gradients, reference)
    finally:
        if workspace is None:
            shutil.rmtree(directory, ignore_errors=True)


def run(
    models: list[str], *, dtype: str = "float64", gradients: bool = False, seed: int = 0, batch: int | None = None
) -> Report:
    """Compare several networks on random weights and images; one report for all."""
    reports = []
    for name in models:
        pair = pairs.build(name, dtype=dtype, seed=seed)
        images = pairs.images(pair, batch or BATCH[dtype], seed)
        reports.append(compare_pair(pair, np.asarray(images, np.float64), gradients=gradients, seed=seed))
        del pair
    merged = Report([row for r in reports for row in r.rows], [w for r in reports for w in r.not_exercised])
    merged.settings = reports[0].settings | {"seed": seed}
    return merged
