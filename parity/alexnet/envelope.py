"""float32 training runs within their own chaos.

Two correct float32 runs part sooner or later: a pre-activation near zero rounds to one side in one run and to the
other in the next, and from there on the runs differ by far more than roundings. When that happens is chance, and no
constant says by how much. So several runs start one unit in the last place apart, each once in either framework, and:

1. the envelope at a step is the largest distance so far between two runs of the reference;
2. the distance between the frameworks (from the same start; the median of all starts) should lie inside;
3. where it doesn't, chance must be ruled out: under the hypothesis that all runs behave alike, which of them are
   JAX's is a mere label. If no relabelling of the runs tells the two groups apart as well as the true labels do (an
   exact permutation test, p = 2/252 with five runs each), the frameworks train differently.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray

from parity.alexnet.trainers import JaxTrainer, Material, TorchTrainer
from parity.bounds.judging import EQUAL, distance, judge, judge_value
from parity.reports.rows import Row, fill

Make = Callable[[], tuple[TorchTrainer, JaxTrainer]]

CHECKED_STEPS = (1, 2, 5, 10, 20, 50, 100, 150)  # and the last


def envelope_rows(make: Make, fed: Material, model: str, recipe: str, runs: int = 5) -> list[Row]:
    """Runs of JAX against runs of the reference.

    Args:
        make: both trainers, with the same weights.
        fed: what all runs are fed.
        model: for the report; likewise recipe.
        recipe: see `model`.
        runs: starting points, the first without a perturbation; each framework runs from all.

    Returns:
        A row for each checked step: the median distance of JAX's run from the reference's, and the envelope.
    """
    steps = len(fed.rates)
    checked = sorted({*CHECKED_STEPS, steps} & set(range(1, steps + 1)))
    # One after the other, and each side compiled once.
    reference, candidate = ([_history(side, fed, checked, perturbation=i) for i in range(runs)] for side in make())
    rows = []
    envelope = 0.0
    for place, step in enumerate(checked):
        ours, theirs = ([history[place] for history in side] for side in (candidate, reference))
        row = Row(model, "trajectory", "trajectory", f"{recipe} step {step}", "float32", order=step, kind="training")
        envelope = _judged(row, ours, theirs, envelope)
        rows.append(row)
    return rows


def _judged(row: Row, candidate: list[NDArray], reference: list[NDArray], envelope: float) -> float:
    """Fill in the row of one step from the weights of all runs; returns the envelope, this step included."""
    runs = len(reference)
    for number, (ours, theirs) in enumerate(zip(candidate, reference, strict=True), start=1):
        judged = judge(ours, theirs, math.inf)  # a run that isn't finite is in no envelope
        if not judged.equal:
            fill(row, judged)
            row.detail = f"run {number}: {row.detail}"
            return envelope
    distances = pairwise([*reference, *candidate])
    envelope = max(envelope, float(distances[:runs, :runs].max()))
    fill(row, judge_value(float(np.median(np.diagonal(distances[:runs, runs:]))), envelope))
    if not row.equal and math.isfinite(row.max_error):
        p = relabelling_p(distances, runs)
        if p <= smallest_p(runs):
            row.detail = f"JAX's runs differ from the reference's more than those among themselves, p = {p:.2g}"
        else:
            row.verdict = EQUAL
            row.detail = f"outside the envelope by chance: relabelled runs differ as much, p = {p:.2g}"
    return envelope


def pairwise(vectors: list[NDArray]) -> NDArray:
    """Distances between all pairs of weight vectors, relative to the first one's norm."""
    found = np.zeros((len(vectors), len(vectors)))
    for i, j in itertools.combinations(range(len(vectors)), 2):
        found[i, j] = found[j, i] = distance(vectors[i], vectors[j])
    return found / np.linalg.norm(vectors[0])


def relabelling_p(distances: NDArray, runs: int) -> float:
    """The share of all divisions into two equal groups that tell them apart at least as well as the true one.

    How well: mean logarithm of the distances across, over those within. Logarithms, since single runs jump.

    Args:
        distances: (2 runs, 2 runs), the first group's runs first.
        runs: in a group.
    """
    logs = np.log(np.maximum(distances, np.finfo(np.float64).tiny))
    everyone = range(2 * runs)

    def contrast(group: tuple[int, ...]) -> float:
        others = [i for i in everyone if i not in group]
        within = [logs[i, j] for half in (group, others) for i, j in itertools.combinations(half, 2)]
        return float(np.mean([logs[i, j] for i in group for j in others]) - np.mean(within))

    observed = contrast(tuple(range(runs)))
    # Rounding must not make the true division lose to its own mirror image.
    as_well = sum(contrast(group) >= observed - 1e-12 for group in itertools.combinations(everyone, runs))
    return as_well / comb(2 * runs, runs)


def smallest_p(runs: int) -> float:
    """What `relabelling_p` gives if no other division does as well: a division and its mirror image are one."""
    return 2 / comb(2 * runs, runs)


def _history(trainer: TorchTrainer | JaxTrainer, fed: Material, checked: list[int], perturbation: int) -> list[NDArray]:
    """All weights as one vector after the checked steps; `perturbation` > 0 starts one ulp off, each up or down."""
    trainer.restart()
    if perturbation:
        rng = np.random.default_rng([perturbation, 4])
        with_noise = {}
        # In one order of names: either framework has its own, and both must start from the same weights.
        for name, w in sorted(trainer.weights().items()):
            towards = np.where(rng.random(w.shape) < 0.5, -np.inf, np.inf).astype(w.dtype)
            with_noise[name] = np.nextafter(w, towards)
        trainer.load(with_noise)
    kept = []
    for step in range(len(fed.rates)):
        _, gradients = trainer.gradients(fed.images[step], fed.labels[step], fed.masks[step])
        trainer.update(gradients, fed.rates[step])
        if step + 1 in checked:
            weights = trainer.weights()
            kept.append(np.concatenate([weights[name].ravel() for name in sorted(weights)]).astype(np.float64))
    return kept
