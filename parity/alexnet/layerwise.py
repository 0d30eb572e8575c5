"""`parity layers` and `parity grads`: every layer of this repository's networks, both sides, one by one."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jax_alexnet.files import weight_homes
from jax_alexnet.variants import VARIANTS
from parity.alexnet import pairs
from parity.candidate import jax_libraries, jax_run
from parity.candidate.jax_arrays import cast
from parity.candidate.jax_candidate import Candidate
from parity.causes import diagnosis
from parity.causes.layer import parameters as causes
from parity.comparison import matching
from parity.comparison.store import Store
from parity.kinds import jax_leaves
from parity.kinds.layouts import input_to_flax
from parity.reference import torch_backward, torch_capture, torch_structure, torch_tensors
from parity.reports.report import Report
from parity.reports.rows import Row, compare_arrays

# float32, bfloat16: the more values, the narrower the limits of the ratio of their errors, see `parity.bounds.ratio`.
BATCH = {"float64": 2, "float32": 4, "bfloat16": 4}


def compare_pair(
    pair: pairs.Pair,
    images: NDArray,
    *,
    gradients: bool = False,
    masks: dict[str, NDArray] | None = None,
    seed: int = 0,
    whole: bool = True,
    workspace: Path | None = None,
) -> Report:
    """Compare both sides of one network.

    Args:
        pair: both sides; the PyTorch module may carry forward and backward hooks' traces afterwards, no more.
        images: (batch, 3, height, width), float.
        gradients: compare backward passes too.
        masks: dropout masks by layer, True where kept, as PyTorch's layers see them: compare in training mode.
        seed: of the cotangent.
        whole: run both models from end to end as well.
        workspace: where captures go and stay; a temporary directory if None.
    """
    ours, model = input_to_flax(images), jax_libraries.of(pair.flax_module)
    kwargs = pairs.training_arguments(pair, masks) if masks is not None else {}
    leaves, _ = jax_leaves.structure(model, (cast(ours, pair.dtype),), kwargs)
    reference = torch_structure.structure(pair.torch_module)
    chosen = matching.match(leaves, reference)
    directory = workspace or Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        store = Store(directory)
        pair.torch_module.train(masks is not None)
        capture = torch_capture.Capture(pair.torch_module, store, pair.dtype, set(chosen.pairs.values()))
        tensors = torch_tensors.as_tensors((images,), pair.dtype)
        torch_backward.record(capture, tensors, gradients, seed)
        candidate = Candidate(
            model,
            kwargs,
            leaves,
            chosen,
            store,
            pair.dtype,
            torch_structure.weights_reader(pair.torch_module),
            pair.variables,
            pair.name,
        )
        candidate.masks = masks or {}
        return jax_run.run(candidate, (ours,), gradients, reference, whole=whole)
    finally:
        if workspace is None:
            shutil.rmtree(directory, ignore_errors=True)


def run(
    models: list[str],
    *,
    dtype: str = "float64",
    gradients: bool = False,
    seed: int = 0,
    batch: int | None = None,
    images: Path | None = None,
    weights: Path | None = None,
    show: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Compare several networks; one report for all.

    Args:
        models: their ids.
        dtype: of the lane.
        gradients: compare backward passes too.
        seed: of weights, random images and cotangents.
        batch: images; the lane's default if None.
        images: folder of real pictures; random images if None.
        weights: file of trained weights, for the one model, which each side reads by itself; what JAX would write for
            PyTorch must be PyTorch's again. Drawn if None.
        show: called with each model's report as soon as it is there.
    """
    merged = Report([])
    for name in models:
        pair = pairs.load(name, weights, dtype) if weights else pairs.build(name, dtype=dtype, seed=seed)
        count = batch or BATCH[dtype]
        chosen = pairs.pictures(pair, images, count) if images else pairs.images(pair, count, seed)
        report = compare_pair(pair, np.asarray(chosen, np.float64), gradients=gradients, seed=seed)
        if weights:
            report.rows += exported(pair)
        show(report)
        _merge(merged, report)
        del pair, report
        gc.collect()  # hundreds of megabytes of weights hang in reference cycles
    merged.settings |= {"seed": seed, "images": str(images or "random"), "weights": str(weights or "random")}
    return merged


def exported(pair: pairs.Pair) -> list[Row]:
    """JAX's weights as its exports bring them to PyTorch, against PyTorch's own, bit for bit: one row a parameter."""
    made = weight_homes.to_torch(pair.variables["params"], VARIANTS[pair.name], pair.image_size[0])
    rows = []
    for name, parameter in pair.torch_module.named_parameters():
        path, _, part = name.rpartition(".")
        theirs, ours = torch_tensors.to_numpy(parameter), np.asarray(made[name])
        row = Row(pair.name, path, path, f"weights:{part} exported", pair.dtype, kind="weights")
        compare_arrays(row, ours.astype(theirs.dtype), theirs, None)
        if row.verdict == "mismatch":
            diagnosis.attach(row, [causes.described(part, theirs.astype(np.float64), ours.astype(np.float64))])
        rows.append(row)
    return rows


def _merge(merged: Report, report: Report) -> None:
    """Add one model's report, keeping the arrays of the row that the merged report points at."""
    better = not merged.rows or _rank(report) > _rank(merged)
    merged.rows += report.rows
    merged.not_exercised += [f"{report.rows[0].model}: {what}" for what in report.not_exercised]
    merged.settings |= report.settings
    if better:
        merged.arrays, merged.arrays_of = report.arrays, report.arrays_of


def _rank(report: Report) -> tuple[int, float]:
    """The first report that differs has the arrays, else one without bounds, else the worst of the equal."""
    if report.first_divergence is not None:
        return 2, 0.0
    return (0, max((row.fraction for row in report.rows), default=-1.0)) if report.equal else (1, 0.0)
