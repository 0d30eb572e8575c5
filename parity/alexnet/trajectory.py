"""`parity train`: optimizers step by step, training runs in float64, and float32 runs within their own chaos.

What float32 may do is in `parity.alexnet.envelope`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np

from parity.alexnet import optimizer_causes, pairs
from parity.alexnet.envelope import envelope_rows
from parity.alexnet.optimizer_causes import Rule, Step
from parity.alexnet.trainers import Arrays, JaxTrainer, Material, TorchTrainer
from parity.bounds.judging import judge_worst, missing
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes.layer.parameters import Cause
from parity.reports.report import Report
from parity.reports.rows import Row, fill
from torch_ref.recipes import recipe_for

# The requirement for float64 (parity.md): optimizer steps to 1e-13, ten steps of training to 1e-10.
STEP_LIMIT, TEN_STEPS_LIMIT = 1e-13, 1e-10

# Learning rates that suit random weights and pictures of small networks: it is the update that is under test.
RATES = {"blog": 1e-4, "paper": 1e-3, "caffe": 1e-3, "torchvision": 1e-3, "cifar": 1e-3}

# Sides in pixels at which the networks' last maps still have several pixels; the CIFAR nets keep their own.
SMALL_SIZES = {
    "single_column": 67, "two_column": 71, "cuda_convnet_2012": 71, "caffe_alexnet": 71, "caffenet": 71,
    "one_weird_trick": 67, "one_weird_trick_lrn": 71,
}  # fmt: skip


def material(pair: pairs.Pair, steps: int, batch: int, rate: float, drop_after: int, seed: int = 0) -> Material:
    """Learnable images (each class has its own pattern, in noise), shuffled labels, masks and a learning-rate drop."""
    rng = np.random.default_rng([seed, 3])
    classes = int(list(pair.torch_module.modules())[-1].out_features)  # type: ignore[arg-type]
    patterns = rng.standard_normal((classes, 3, *pair.image_size), np.float32)
    labels = rng.integers(0, classes, (steps, batch))
    noise = rng.standard_normal((steps, batch, 3, *pair.image_size), np.float32)
    images = patterns[labels] + noise
    masks = [pairs.draw_masks(pair, batch, seed * 100_003 + step) for step in range(steps)]
    return Material(images, labels, masks, [rate if step < drop_after else rate / 10 for step in range(steps)])


def optimizer_rows(torch: TorchTrainer, jax: JaxTrainer, fed: Material, model: str, recipe: str) -> list[Row]:
    """Both optimizers on the reference's gradients: parameters and every slot after each step, loss and gradients."""
    rows: list[Row] = []
    recorded = []
    for step in range(len(fed.rates)):
        batch = fed.images[step], fed.labels[step], fed.masks[step]
        loss, gradients = torch.gradients(*batch)
        before = torch.weights()
        jax.load(before)  # teacher forcing: one step is judged at a time
        ours, our_gradients = jax.gradients(*batch)
        title = f"step {step + 1}"
        rows.append(_scalar(model, "loss", f"{recipe} {title}", ours, loss, jax.pair.dtype, step))
        rows.append(_tree(model, "gradients", f"{recipe} {title}", our_gradients, gradients, jax.pair.dtype, step))
        torch.update(gradients, fed.rates[step])
        jax.update(gradients, fed.rates[step])
        rows += _after(model, f"{recipe} {title}", torch, jax, step, STEP_LIMIT)
        recorded.append(Step(before, gradients, fed.rates[step], torch.weights(), jax.weights()))
    if any(not row.equal and row.name not in ("loss", "gradients") for row in rows):
        causes = optimizer_causes.explain(rule_of(torch, recipe, model), recorded, fed.labels.shape[1], STEP_LIMIT)
        _attach(causes, [row for row in rows if row.name not in ("loss", "gradients")])
    wrong = [row for row in rows if row.name in ("loss", "gradients")]
    _attach(_loss_causes(wrong, fed.labels.shape[1]), wrong)
    return rows


def _attach(causes: list[Cause], rows: list[Row]) -> None:
    for row in (row for row in rows if not row.equal):
        row.causes, row.cause_keys = [str(c) for c in causes], [c.key for c in causes]


def _loss_causes(rows: list[Row], batch: int) -> list[Cause]:
    """A loss or gradient that is the other side's times the batch was summed where it should be averaged."""
    first = next((row for row in rows if not row.equal), None)
    if first is None or first.jax is None or not first.torch:
        return []
    for factor, key, text in (
        (batch, "loss_summed", "the loss is summed over the batch, not averaged"),
        (1 / batch, "loss_averaged_twice", "the loss is divided by the batch once more"),
    ):
        for side, wrong, right in (("jax", first.jax, first.torch), ("torch", first.torch, first.jax)):
            after = abs(wrong / factor - right)
            # Summed on one side is averaged twice on the other: only the greater one can be a sum.
            if after <= STEP_LIMIT * abs(right) and (factor > 1) == (abs(wrong) > abs(right)):
                return [Cause(key, side, text, abs(wrong - right), after)]
    return []


def rule_of(torch: TorchTrainer, recipe: str, model: str) -> Rule:
    """A recipe's update rule in plain numbers, from the reference's transcription of it."""
    chosen = recipe_for(recipe, model)
    kinds = {"paper": "inside", "sgd": "outside", "adam": "adam"}
    decay, factor = {}, {}
    for name in torch.weights():
        layer, kind = name.rsplit(".", 1)
        decay[name] = chosen.layer_weight_decay.get(layer, chosen.weight_decay)
        factor[name] = 1.0
        if kind == "bias":
            factor[name] = chosen.bias_learning_rate_factor
            decay[name] = decay[name] if chosen.decay_biases else 0.0
    return Rule(kinds[chosen.optimizer], chosen.momentum, decay, factor)


def free_rows(torch: TorchTrainer, jax: JaxTrainer, fed: Material, model: str, recipe: str) -> list[Row]:
    """Both sides train freely on their own gradients; compared after steps 1 to 3 and after the last."""
    rows = []
    for step in range(len(fed.rates)):
        batch = fed.images[step], fed.labels[step], fed.masks[step]
        for side in (torch, jax):
            _, gradients = side.gradients(*batch)
            side.update(gradients, fed.rates[step])
        if step < 3 or step == len(fed.rates) - 1:
            limit = STEP_LIMIT if step < 3 else TEN_STEPS_LIMIT
            rows += _after(model, f"{recipe} free step {step + 1}", torch, jax, step, limit)
    return rows


def _after(model: str, stage: str, torch: TorchTrainer, jax: JaxTrainer, step: int, limit: float) -> list[Row]:
    rows = [_tree(model, "parameters", stage, jax.weights(), torch.weights(), jax.pair.dtype, step, limit)]
    ours, theirs = jax.slots(), torch.slots()
    for slot in sorted({*ours, *theirs}):
        if slot not in ours or slot not in theirs:
            row = Row(model, slot, slot, stage, jax.pair.dtype, order=step)
            rows.append(fill(row, missing(f"{'PyTorch' if slot in theirs else 'JAX'} alone keeps it")))
            continue
        rows.append(_tree(model, slot, stage, ours[slot], theirs[slot], jax.pair.dtype, step, limit))
    return rows


def _tree(
    model: str, name: str, stage: str, ours: Arrays, theirs: Arrays, dtype: str, step: int, limit: float | None = None
) -> Row:
    """The tensor that differs most, normwise; without a limit, float64's end-to-end one (1e-11) for gradients."""
    bound = (limit or 1e-11) * UNIT_ROUNDOFF[dtype] / UNIT_ROUNDOFF["float64"]
    judged = judge_worst(ours, theirs, bound)
    row = Row(model, name, judged.name or name, stage, dtype, order=step, kind="optimizer")
    row.n = round(bound / UNIT_ROUNDOFF[dtype])
    fill(row, judged)
    if not row.equal and judged.name:
        row.detail = f"worst in {judged.name}" + (f": {judged.detail}" if judged.detail else "")
    return row


def _scalar(model: str, name: str, stage: str, ours: float, theirs: float, dtype: str, step: int) -> Row:
    arrays = {name: np.array([ours])}, {name: np.array([theirs])}
    return _tree(model, name, stage, *arrays, dtype, step, STEP_LIMIT)


def trainers(pair: pairs.Pair, recipe: str) -> tuple[TorchTrainer, JaxTrainer]:
    """Both sides of a pair."""
    return TorchTrainer(pair, recipe), JaxTrainer(pair, recipe)


def run(
    models: list[str],
    recipes: list[str],
    *,
    dtype: str = "all",
    steps: int = 200,
    runs: int = 5,
    batch: int = 4,
    image_size: int | None = None,
    seed: int = 0,
    show: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Optimizers in float64, ten free steps in float64, and a float32 run inside its envelope.

    Args:
        models: ids of networks.
        recipes: names of recipes.
        dtype: `float64` for the optimizers and the free steps, `float32` for the envelope, or `all`.
        steps: of the float32 run; none if 0.
        runs: of each framework, started one unit in the last place apart.
        batch: images a step.
        image_size: side in pixels; small sizes that suit the network if None.
        seed: of everything drawn.
        show: called with each model's report as soon as it is there.
    """
    merged = Report([], settings={"seed": seed})
    for model in models:
        size = image_size or SMALL_SIZES.get(model)

        def make(
            dtype: str, recipe: str, model: str = model, size: int | None = size
        ) -> tuple[TorchTrainer, JaxTrainer]:
            return trainers(pairs.build(model, dtype=dtype, classes=10, image_size=size, seed=seed), recipe)

        for recipe in recipes:
            rate = RATES[recipe]
            rows: list[Row] = []
            if dtype in ("float64", "all"):
                theirs, ours = make("float64", recipe)
                rows += optimizer_rows(theirs, ours, material(ours.pair, 5, batch, rate, 3, seed), model, recipe)
                theirs, ours = make("float64", recipe)
                rows += free_rows(theirs, ours, material(ours.pair, 10, batch, rate, 5, seed), model, recipe)
                del theirs, ours
                gc.collect()
            if steps and dtype in ("float32", "all"):
                fed = material(make("float32", recipe)[1].pair, steps, batch, rate, steps * 3 // 4, seed)
                rows += envelope_rows(lambda r=recipe: make("float32", r), fed, model, recipe, runs)
            show(Report(rows))
            merged.rows += rows
            gc.collect()
    return merged
