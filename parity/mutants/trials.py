"""`parity mutants`: plant every bug, one at a time, and score what the harness says."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from alexnet_io.errors import UserError
from parity.alexnet import layerwise as layers
from parity.alexnet import pairs, trajectory
from parity.mutants import (
    conventions,
    data,
    dropout,
    files,
    gradients,
    kernels,
    norms,
    precision,
    programs,
    steps,
    windows,
)
from parity.mutants.mutant import Mutant
from parity.mutants.score import EQUIVALENT, KILLED, NOT_EXERCISED, SURVIVED, Outcome, Score
from parity.reports.report import Report

STEP_MODEL = "cifar_18pct"  # on which losses and optimizers are compared


def all_mutants() -> list[Mutant]:
    """Every mutant that is planted into a network."""
    return [
        *norms.norm_mutants(), *norms.order_mutants(), *kernels.kernel_mutants(), *windows.window_mutants(),
        *dropout.dropout_mutants(), *kernels.channel_mutants(), *precision.precision_mutants(),
        *precision.cast_mutants(), *gradients.gradient_mutants(), *conventions.convention_mutants(),
        *conventions.hook_mutants(),
    ]  # fmt: skip


def run(
    names: Iterable[str] = (),
    show: Callable[[Outcome], None] = lambda outcome: None,
    *,
    model: str = "all",
    dtype: str = "all",
) -> Score:
    """Plant the mutants whose id holds one of the names, or all; score the harness.

    Args:
        names: parts of ids.
        show: called with each outcome as soon as it is there.
        model: only mutants of this network, or `all`.
        dtype: only mutants that are looked for in this precision, or `all`.

    Raises:
        UserError: no mutant is left.
    """
    wanted = tuple(names)

    def taken(mutant_id: str, network: str, precision: str) -> bool:
        by_name = not wanted or any(name in mutant_id for name in wanted)
        return by_name and model in (network, "all") and dtype in (precision, "all")

    chosen = [m for m in all_mutants() if taken(m.id, m.model, m.dtype)]
    # Neighbours share a network: building one costs more than comparing it.
    chosen.sort(key=lambda m: (m.model, str(m.image_size), m.dtype, m.number))
    outcomes: list[Outcome] = []
    built: tuple[Any, pairs.Pair] | None = None
    for mutant in chosen:
        key = mutant.model, mutant.image_size, mutant.dtype, mutant.stage == "masks"
        if built is None or built[0] != key:
            built = None
            gc.collect()
            built = key, build(mutant)
        outcomes.append(_one(mutant, built[1]))
        show(outcomes[-1])
    built = None
    gc.collect()
    for entry in steps.step_mutants():
        if taken(entry[0], STEP_MODEL, "float64"):
            outcomes.append(_step(*entry))
            show(outcomes[-1])
    # Preprocessing belongs to no network, and is compared in both precisions.
    if model == "all" and dtype != "bfloat16":
        outcomes += _entries([e for e in data.data_mutants() if taken(e[0], model, dtype)], show)
    around = [*files.file_mutants(), *programs.program_mutants()]
    outcomes += _entries([e for e in around if taken(e[0], files.MODEL, "float64")], show)
    if not outcomes:
        raise UserError(
            f"no mutant is planted into {model} in {dtype} under these names: leave --only, --model or --dtype out; "
            f"networks with mutants are {', '.join(sorted({m.model for m in all_mutants()}))}"
        )
    return Score(sorted(outcomes, key=lambda o: (o.number, o.id)))


def build(mutant: Mutant) -> pairs.Pair:
    """The clean pair that a mutant is planted into."""
    pair = pairs.build(mutant.model, dtype=mutant.dtype, classes=10, image_size=mutant.image_size, seed=mutant.number)
    return pairs.with_dropout_rate(pair, 0.3) if mutant.stage == "masks" else pair


def compare(mutant: Mutant, pair: pairs.Pair, planted: pairs.Pair) -> Report:
    """The harness on a planted pair."""
    batch = layers.BATCH[mutant.dtype]
    images = np.asarray(pairs.images(pair, batch, mutant.number), np.float64)
    masks = pairs.draw_masks(pair, batch, mutant.number) if mutant.stage == "masks" else None
    return layers.compare_pair(planted, images, gradients=mutant.stage == "grads", masks=masks, whole=False)


def _one(mutant: Mutant, pair: pairs.Pair) -> Outcome:
    outcome = Outcome(mutant.id, mutant.number, mutant.title, mutant.side, SURVIVED)
    if mutant.needs:
        outcome.verdict, outcome.detail = NOT_EXERCISED, f"needs {mutant.needs}"
        return outcome
    with mutant.plant(pair) as planted:
        report = compare(mutant, pair, planted)
        gc.collect()
        if report.first_divergence is None:
            outcome.detail = unchanged(mutant, pair, planted)
            # A bug that was meant to show and changes nothing was not planted: that must not pass.
            outcome.verdict = EQUIVALENT if outcome.detail and mutant.equivalent else SURVIVED
            return outcome
    return _named(outcome, report, mutant.layers, mutant.causes)


def _named(outcome: Outcome, report: Report, right: tuple[str, ...], causes: tuple[str, ...]) -> Outcome:
    first = report.first_divergence
    if first is None:
        return outcome
    outcome.verdict = KILLED
    outcome.layer, outcome.stage = first.name, first.stage
    outcome.cause = first.causes[0] if first.causes else None
    outcome.cause_key = first.cause_keys[0] if first.cause_keys else None
    outcome.layer_right = first.name in right
    outcome.cause_right = outcome.cause_key in causes
    return outcome


def unchanged(mutant: Mutant, pair: pairs.Pair, planted: pairs.Pair) -> str:
    """Why a mutant that was not seen is equivalent; empty if it isn't.

    The mutated side alone is run beside itself without the mutant, on images of three scales: if every logit has
    the same bits each time, there was nothing to see. The size of the maps decides for some bugs, the scale for
    others.
    """
    for seed, scale in ((1, 1.0), (2, 1e-3), (3, 1e3)):
        images = np.asarray(pairs.images(pair, 2, seed), np.float64) * scale
        before, after = (pairs.run_one_side(p, images, mutant.side) for p in (pair, planted))
        if not np.array_equal(before, after):
            return ""
    return "the mutated side gives the same bits as without the mutant, on images of three scales"


def _step(name: str, number: int, title: str, side: str, recipe: str, right: Any, causes: Any, change: Any) -> Outcome:
    torch_side, jax_side = trajectory.trainers(pairs.build(STEP_MODEL, seed=number), recipe)
    change(torch_side, jax_side)
    fed = trajectory.material(jax_side.pair, 5, 4, 0.01, drop_after=3, seed=number)
    report = Report(trajectory.optimizer_rows(torch_side, jax_side, fed, STEP_MODEL, recipe))
    outcome = Outcome(name, number, title, side, SURVIVED)
    return _named(outcome, report, right, causes)


def _entries(entries: list[data.Entry], show: Callable[[Outcome], None]) -> list[Outcome]:
    """Mutants around the networks, each with what runs it: preprocessing, schedules, files, programs."""
    outcomes = []
    for name, number, title, side, right, causes, run_one in entries:
        outcomes.append(_named(Outcome(name, number, title, side, SURVIVED), run_one(), right, causes))
        show(outcomes[-1])
        gc.collect()
    return outcomes
