"""Twin runs of both shipped training programs: equal as they are, and different where a bug is planted into one."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.run import run_log
from alexnet_io.run.evaluation import Evaluation
from alexnet_io.run.loop import TrainingLoop
from alexnet_io.run.run_description import read_description
from alexnet_io.run.signals import Signals
from jax_alexnet import engine as jax_engine
from jax_alexnet import evaluation as jax_evaluation
from jax_alexnet.engine import JaxEngine
from jax_alexnet.files.finished_run import load_run
from jax_alexnet.schedules import Plateau
from parity.__main__ import main
from parity.twins import after_resumption, against_ledger, both_sides, cases, differences, ledger, program, sides
from parity.twins.engines import Fate, JaxPrograms
from parity.twins.records import Record, part_of
from parity.twins.sides import run_jax, run_torch
from torch_ref import augment, optim
from torch_ref import engine as torch_engine
from torch_ref import run_setup as torch_setup
from torch_ref import schedules as torch_schedules
from torch_ref import steps as torch_steps
from torch_ref.engine import TorchEngine
from torch_ref.evaluation import of_run

pytestmark = pytest.mark.usefixtures("optimized_steps")

SIDE = 16  # pixels: what is computed takes a quarter of the time, what is kept account of none
# Of test images a short last batch, as of 133 with the programs' own batch of 128.
DATA, EVALUATION_BATCH = "synthetic:classes=10,train=22,test=21", 16


@dataclass
class Twin:
    """A case and both sides' straight runs of it."""

    case: cases.Case
    jax: Record
    torch: Record
    outcome: program.Outcome
    programs: JaxPrograms
    root: Path

    def again(self, side: str, where: Path, fate: Fate | None = None) -> Record:
        """One side once more."""
        if side == "jax":
            return run_jax(self.case.at(where / "jax"), self.programs, fate)
        return run_torch(self.case.at(where / "torch"), self.jax.first_parameters, fate)

    def first(self, **sides: Record) -> differences.Difference:
        """Where the twins part, with one side replaced by another run of it."""
        ours, theirs = sides.get("jax", self.jax), sides.get("torch", self.torch)
        found = list(both_sides.between(ours, theirs, differences.Largest()))
        found += [d for record in sides.values() for d in against_ledger.from_ledger(record)]
        assert found, "nothing was found"
        return min(found, key=lambda difference: difference.step)


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Drawing takes as long as a run, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Of evaluation, which would else take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (jax_evaluation, torch_steps):
            patch.setattr(module, "EVALUATION_BATCH", EVALUATION_BATCH)
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Twins by recipe and schedule, each made once; JAX's steps are compiled once for each recipe."""
    made, programs, root = {}, JaxPrograms(), tmp_path_factory.mktemp("twins")

    def twin(recipe: str, schedule: str, **changes) -> Twin:
        key = (recipe, schedule, str(changes))
        if key not in made:
            data = None if schedule == "plateau" else DATA
            (case,) = cases.choose("cifar_18pct", recipe, schedule, data, 0, root / "cache", SIDE)
            case = replace(case, settings=replace(case.settings, **changes))
            made[key] = Twin(case, *program.twin(case, root / str(len(made)), programs), programs, root)
        return made[key]

    return twin


@pytest.fixture(scope="module")
def twin(make) -> Twin:
    """The paper's recipe, with crops, flips and colour noise, under a schedule that drops twice."""
    return make("paper", "at_epochs")


@pytest.fixture(scope="module")
def plateau(make) -> Twin:
    """The same under a plateau, with an evaluation after every step: accuracies rise, and then stay as they are."""
    found = make("paper", "plateau", learning_rate=0.01, seed=5)
    accuracies = [row.top1 for row in found.jax.rows if row.split == "test"]
    assert accuracies[0] < max(accuracies) and accuracies.count(max(accuracies)) > 1, "it would show no bug"
    return found


@pytest.fixture(scope="module")
def refined(make) -> Twin:
    """Warmup and cosine, smoothed labels, clipping, a batch in two parts and averaged weights, at once."""
    return make("paper", "cosine", **cases.REFINEMENTS, steps=5, learning_rate=0.01)


@pytest.mark.parametrize("kind", ["twin", "plateau"])
def test_both_programs_do_the_same(kind, request):
    found: Twin = request.getfixturevalue(kind)
    assert found.outcome.equal, str(found.outcome)
    assert found.jax.code == found.torch.code == 0
    assert len(found.jax.steps) == len(found.torch.steps) == 8
    rates = [step.rate for step in found.torch.steps]
    assert len(set(rates)) >= 3 if kind == "twin" else len(set(rates)) >= 2
    # What is compared is there: crops, mirror images, a short last batch, ten classes of which five are not all.
    ids = np.concatenate([step.ids for step in found.jax.steps])
    assert (ids == -1).any() == (kind == "twin")
    assert all(step.input is not None and step.parameters and step.slots for step in found.jax.steps)
    assert {row.split for row in found.torch.rows} == {"train", "test"}


def test_killed_and_stopped_runs_go_on_as_if_nothing_had_happened(plateau, tmp_path):
    outcomes = list(program.disturbed(plateau.case, plateau.jax, plateau.torch, tmp_path, plateau.programs, (3,)))
    assert len(outcomes) == 4
    assert all(outcome.equal for outcome in outcomes), "\n".join(map(str, outcomes))


def test_all_that_a_step_does_besides_is_the_same_in_both_programs(refined):
    """And is done: the rate rises and falls, gradients are and aren't clipped, averages are others than the weights."""
    assert refined.outcome.equal, str(refined.outcome)
    rates = [step.rate / 0.01 for step in refined.torch.steps]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 1 / 4], rel=1e-14)
    for record in (refined.jax, refined.torch):
        last = record.steps[-1]
        assert not any(np.array_equal(last.averages[name], value) for name, value in last.parameters.items())
        norms = [np.linalg.norm(np.concatenate([g.ravel() for g in gradients])) for gradients in applied(record)]
        assert norms[1] == pytest.approx(1.4, rel=1e-12) and norms[0] < 1.39
        assert "exponential moving average (--ema 0.8)" in record.said
        description = read_description(Path(record.settings["output"]))
        assert description["evaluated_weights"] == {"average": "exponential", "decay": 0.8}


def applied(record: Record) -> list[list[np.ndarray]]:
    """The gradients that the paper's rule was given, from its velocities: v <- 0.9 v - rate decay w - rate g."""
    decay, found = record.settings["weight_decay"], []
    before = {name: 0 * value for name, value in record.first_parameters.items()}, record.first_parameters
    for step in record.steps:
        velocity = {name: step.slots[f"velocity {name}"] for name in record.first_parameters}
        found.append(
            [(0.9 * v - velocity[name]) / step.rate - decay * before[1][name] for name, v in before[0].items()]
        )
        before = velocity, step.parameters
    return found


def test_what_reads_a_run_gets_its_averages(refined):
    run = Path(refined.jax.settings["output"])
    for which in ("best", "newest"):
        found = load_run(run, which=which, devices=jax.devices()[:1])
        step = refined.jax.steps[found.step - 1]
        kernel = np.asarray(found.params["conv1"]["kernel"]).transpose(3, 2, 0, 1)
        assert np.array_equal(kernel, step.averages["conv1.weight"]), which
    run = Path(refined.torch.settings["output"])
    for which in ("best", "newest"):
        asked = EvaluateSettings(run=run, checkpoint=which, devices="1", precision="float64")
        found = of_run(run, asked)
        weight = found.network.get_parameter("conv1.weight").detach().numpy()
        assert np.array_equal(weight, refined.torch.steps[found.step - 1].averages["conv1.weight"]), which


def test_an_average_goes_on_after_a_stop_as_if_nothing_had_happened(refined, tmp_path):
    """Of the second epoch in its middle: weights, memories, averages, rates and rows are bit for bit the same."""
    outcomes = list(program.disturbed(refined.case, refined.jax, refined.torch, tmp_path, refined.programs, (4,)))
    assert len(outcomes) == 4
    assert all(outcome.equal for outcome in outcomes), "\n".join(map(str, outcomes))


def not_smoothed(monkeypatch):
    plain = torch_steps._losses
    monkeypatch.setattr(torch_steps, "_losses", lambda logits, labels, share: plain(logits, labels))


def averaged_one_step_late(monkeypatch):
    plain = torch_engine.train_step

    def train_step(setup, *rest):
        average, update = setup.average, setup.average.update_parameters
        update(setup.network)
        monkeypatch.setattr(average, "update_parameters", lambda network: None)
        return plain(setup, *rest)

    monkeypatch.setattr(torch_engine, "train_step", train_step)


def clipped_as_pytorch_does(monkeypatch):
    def clip(network, limit):
        torch.nn.utils.clip_grad_norm_(network.parameters(), limit)

    monkeypatch.setattr(torch_steps, "clip_gradients", clip)


def warmed_up_from_the_start(monkeypatch):
    monkeypatch.setattr(torch_engine, "warmup_share", lambda step, warmup: min((step + 1) / warmup, 1.0))


def parts_weighed_alone(monkeypatch):
    """Each part's own mean, as where a loss is divided by the images at hand."""
    plain = torch_steps._add_gradients

    def add(setup, batch, step, rows):
        with monkeypatch.context() as patch:
            patch.setattr(type(setup), "real_examples", lambda self, step: batch.weights[rows].sum())
            return plain(setup, batch, step, rows)

    monkeypatch.setattr(torch_steps, "_add_gradients", add)


@pytest.mark.parametrize(
    ("plant", "step", "quantity"),
    [
        (not_smoothed, 1, "loss"),
        (averaged_one_step_late, 1, "average of"),
        (clipped_as_pytorch_does, 2, "weights"),
        (warmed_up_from_the_start, 1, "learning rate"),
        (parts_weighed_alone, None, "weights"),
    ],
)
def test_a_bug_in_what_a_step_does_besides_is_found_and_placed(refined, tmp_path, monkeypatch, plant, step, quantity):
    plant(monkeypatch)
    found = refined.first(torch=refined.again("torch", tmp_path))
    assert found.quantity.startswith(quantity), str(found)
    assert step is None or found.step == step, str(found)


def smoothed(monkeypatch):
    plain = F.cross_entropy
    monkeypatch.setattr(
        torch_steps, "F", SimpleNamespace(cross_entropy=lambda *x, **y: plain(*x, **{**y, "label_smoothing": 0.01}))
    )


def rate_late(monkeypatch):
    at = torch_schedules.Milestones
    plain = torch_schedules.learning_rate

    def late(schedule, base, *, epoch, step):
        assert isinstance(schedule, at)
        return base * schedule.factor ** sum(epoch > drop for drop in schedule.epochs) if epoch else plain(
            schedule, base, epoch=epoch, step=step
        )  # fmt: skip

    monkeypatch.setattr(torch_engine, "learning_rate", late)


def rank_of_six(monkeypatch):
    def hits(logits, labels):
        before = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
        return (before < 1).to(logits.dtype), (before <= 5).to(logits.dtype)

    monkeypatch.setattr(torch_steps, "_hits", hits)


def same_order_in_each_epoch(monkeypatch):
    plain = torch_setup.batches
    monkeypatch.setattr(torch_setup, "batches", lambda *x, **y: plain(*x, **{**y, "epoch": 0}))


def crops_of_one_pixel_less(monkeypatch):
    plain = augment.cut

    def cut(images, draws, size):
        return plain(images, draws if draws is None else draws._replace(left=np.maximum(draws.left - 1, 0)), size)

    monkeypatch.setattr(augment, "cut", cut)


def decayed_biases(monkeypatch):
    def build(network, recipe):
        return optim.build_optimizer(network, replace(recipe, decay_biases=not recipe.decay_biases))

    monkeypatch.setattr(torch_setup, "build_optimizer", build)


def padding_counts(monkeypatch):
    class Counting(Evaluation):
        def add(self, logits, labels, weights=None):
            super().add(logits, labels)

    monkeypatch.setattr(torch_steps, "Evaluation", Counting)


@pytest.mark.parametrize(
    ("plant", "step", "quantity"),
    [
        (smoothed, 1, "loss"),
        (rate_late, 4, "learning rate"),
        (rank_of_six, None, "top5"),
        (same_order_in_each_epoch, 4, "examples"),
        (crops_of_one_pixel_less, 1, "input"),
        (padding_counts, 3, "evaluation, examples"),
        (decayed_biases, None, "weights conv"),
    ],
)
def test_a_bug_in_the_reference_is_found_and_placed(
    twin, tmp_path, monkeypatch, plant: Callable, step: int | None, quantity: str
):
    plant(monkeypatch)
    found = twin.first(torch=twin.again("torch", tmp_path))
    assert found.quantity.startswith(quantity), str(found)
    assert step is None or found.step == step, str(found)


def one_step_late(monkeypatch):
    plain = JaxEngine.learning_rate
    monkeypatch.setattr(JaxEngine, "learning_rate", lambda self, step: plain(self, max(step - 1, 0)))


def best_of_equals_is_the_last(monkeypatch):
    plain = TrainingLoop._evaluate

    def evaluate(self):
        self.state.best = np.nextafter(self.state.best, -np.inf)
        return plain(self)

    monkeypatch.setattr(TrainingLoop, "_evaluate", evaluate)


def accuracy_for_error(monkeypatch):
    for engine in (JaxEngine, TorchEngine):
        plain = engine.count_error
        monkeypatch.setattr(engine, "count_error", lambda self, error, plain=plain: plain(self, 1 - error))


def rows_of_an_epoch_less(monkeypatch):
    plain = run_log.MetricsRow
    monkeypatch.setattr(run_log, "MetricsRow", lambda step, epoch, *more: plain(step, max(epoch - 1, 0), *more))


def other_examples(monkeypatch):
    plain = jax_engine.batches
    monkeypatch.setattr(jax_engine, "batches", lambda *x, **y: plain(*x, **{**y, "seed": y["seed"] + 1}))


@pytest.mark.parametrize(
    ("plant", "step", "quantity"),
    [
        (one_step_late, 4, "learning rate"),
        (other_examples, 1, "examples"),
        (rows_of_an_epoch_less, None, "metrics of jax_alexnet"),
    ],
)
def test_a_bug_in_jax_or_in_the_loop_is_found_and_placed(twin, tmp_path, monkeypatch, plant, step, quantity):
    plant(monkeypatch)
    found = twin.first(jax=twin.again("jax", tmp_path))
    assert found.quantity.startswith(quantity), str(found)
    assert step is None or found.step == step, str(found)


@pytest.mark.parametrize(
    ("plant", "quantity"),
    [(best_of_equals_is_the_last, "choice of the best"), (accuracy_for_error, ("plateau", "learning rate"))],
)
def test_a_bug_that_both_programs_share_is_found(plateau, tmp_path, monkeypatch, plant, quantity):
    """Accuracies that stay as they are show which of equals is the best, and when a plateau drops."""
    plant(monkeypatch)
    sides = {side: plateau.again(side, tmp_path) for side in ("jax", "torch")}
    assert plateau.first(**sides).quantity.startswith(quantity)


@pytest.mark.parametrize("side", ["jax", "torch"])
def test_a_plateau_that_is_not_restored_is_found(plateau, tmp_path, monkeypatch, side):
    half = plateau.again(side, tmp_path, Fate(signal_after=5))
    assert half.code == 128 + 15
    if side == "jax":
        monkeypatch.setattr(Plateau, "restore", lambda self, state: None)
    else:
        counter = torch.optim.lr_scheduler.ReduceLROnPlateau
        monkeypatch.setattr(counter, "load_state_dict", lambda self, state: None)
    settings = plateau.case.at(tmp_path / side, resume=True)
    rest = run_jax(settings, plateau.programs) if side == "jax" else run_torch(settings, plateau.jax.first_parameters)
    straight = plateau.jax if side == "jax" else plateau.torch
    assert "plateau" in {found.quantity for found in after_resumption.from_straight(rest, straight, 5)}


def test_the_ledger_knows_the_rules():
    """By hand, from the settings' own words."""
    settings = {"learning_rate": 1.0, "drop_factor": 0.5, "drop_every": 2, "drop_epochs": [1, 3], "schedule": ""}

    def rates(schedule, **more):
        return ledger.rates({**settings, "schedule": schedule, **more}, 8, 2, {2: 0.5, 4: 0.5, 6: 0.25})

    assert rates("constant") == [1.0] * 8
    assert rates("every_steps") == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates("every_epochs") == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert rates("at_epochs") == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates("plateau", plateau_patience=0, plateau_cooldown=0) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    cosine = {"epochs": 9, "steps": 6, "warmup_steps": 2}
    assert rates("cosine", **cosine)[:6] == pytest.approx([1 / 3, 2 / 3, 1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5])
    assert rates("every_steps", warmup_epochs=1.5)[:5] == [0.25, 0.5, 0.375, 0.5, 0.25]
    assert ledger.evaluated_steps({"schedule": "constant", "evaluate_every": 2}, 7, 2) == [4, 7]
    assert ledger.evaluated_steps({"schedule": "plateau", "evaluate_every": 2}, 7, 2) == [2, 4, 6, 7]


def test_nan_is_never_alike(twin):
    spoilt = replace(twin.torch, steps=[*twin.torch.steps])
    last = twin.torch.steps[-1]
    parameters = {name: value.copy() for name, value in last.parameters.items()}
    parameters["conv2.bias"][3] = np.nan
    spoilt.steps[-1] = replace(last, parameters=parameters)
    assert twin.first(torch=spoilt).quantity == "weights conv2.bias"
    missing = {name: value for name, value in last.parameters.items() if name != "conv3.bias"}
    spoilt.steps[-1] = replace(last, parameters=missing)
    assert twin.first(torch=spoilt).quantity == "weights conv3.bias"


def test_of_large_arrays_a_part_and_two_sums_are_kept():
    large = np.arange(200_000.0)
    part = part_of({"x": large})["x"]
    assert len(part) < 70_000
    other = large.copy()
    other[1] += 1  # not among those that are kept
    assert not np.array_equal(part, part_of({"x": other})["x"])


def test_wrong_words_are_refused_by_name(capsys):
    with pytest.raises(SystemExit) as end:
        main(["runs", "--recipe", "papr"])
    assert end.value.code == 2
    assert "paper" in capsys.readouterr().err


def test_a_signal_ends_the_comparison_and_is_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        with Signals():
            signal.raise_signal(signal.SIGTERM)
        return 128 + signal.SIGTERM

    with pytest.raises(SystemExit) as ended:
        sides._run(Record("jax_alexnet"), stopped)
    assert ended.value.code == 143
    assert "stopped by signal 15" in capsys.readouterr().err
    # One that came to an earlier comparison is not this one's.
    sides._run(Record("jax_alexnet"), lambda: 0)
