"""Images kept from training for validation: which they are, and that they alone steer a run of either program."""

from dataclasses import replace

import numpy as np
import pytest
from test_training_loop import Engine, run

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import open_for, open_source
from alexnet_io.data.sources.fingerprint import fingerprint
from alexnet_io.data.sources.opening import with_validation
from alexnet_io.errors import UserError
from alexnet_io.run import steering
from alexnet_io.run.data_identity import refuse_other_data
from alexnet_io.run.metrics import MetricsRow
from alexnet_io.run.plots import draw_curves
from jax_alexnet.recipes import resolve
from parity.twins import both_sides, cases, differences, program
from parity.twins.engines import JaxPrograms
from parity.twins.sides import run_torch
from torch_ref.engine import TorchEngine

pytestmark = pytest.mark.usefixtures("optimized_steps")

SPEC = "synthetic:classes=4,train=40,test=12"


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Drawing takes as long as a run, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        yield


# --- which images -----------------------------------------------------------------------------------------


def test_each_class_gives_its_share_and_no_image_is_in_two_splits():
    whole = open_source(SPEC)
    data = with_validation(whole, 0.2, seed=0)
    assert data.validation is not None and data.steering is data.validation
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 12)
    for split in (data.train, data.validation):
        share = len(split) / 40
        counts = np.bincount(split.labels, minlength=4)
        assert counts.tolist() == np.round(share * np.bincount(whole.train.labels, minlength=4)).tolist()
    assert sorted([*data.train.names, *data.validation.names]) == sorted(whole.train.names)
    of_name = {name: whole.train.read([place])[0] for place, name in enumerate(whole.train.names)}
    for split in (data.train, data.validation):
        for place, name in enumerate(split.names):
            assert np.array_equal(split.read([place])[0], of_name[name])
    assert data.test is whole.test


def test_the_seed_chooses_and_the_same_seed_the_same():
    whole = open_source(SPEC)
    names = [with_validation(whole, 0.2, seed).validation.names for seed in (0, 0, 1)]  # type: ignore[union-attr]
    assert names[0] == names[1] != names[2]


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match=r"--validation 0.01 of 40 images is none, .* validate on: take at least 0.025"):
        with_validation(open_source(SPEC), 0.01, 0)


def test_settings_open_it_and_measuring_a_folder_does_not():
    chosen = resolve(TrainSettings(data=SPEC, validation=0.2, image_size=67))
    assert len(open_for(chosen).steering) == 8
    assert open_for(chosen, measuring=True).validation is None
    assert steering.counts(open_for(chosen)) == "32 training, 8 validation and 12 test images"


def test_a_run_that_goes_on_is_held_to_its_validation_images_too():
    whole = open_source(SPEC)
    facts = [fingerprint(with_validation(whole, share, 0)) for share in (0.2, 0.2, 0.3)]
    assert "validation" not in fingerprint(whole)
    assert refuse_other_data(facts[0], facts[1], 1, 4, False) is None
    with pytest.raises(UserError, match=r"32 training images then, 28 now; 8 validation images then, 12 now"):
        refuse_other_data(facts[0], facts[2], 1, 4, False)
    other = refuse_other_data(facts[0], facts[2], 1, 4, True)
    assert other is not None and other.other_steering_images and "on the new validation images" in other.warning
    tested = {**facts[0], "test": {"examples": 5, "digest": "x"}}
    other = refuse_other_data(facts[0], tested, 1, 4, True)
    assert other is not None and not other.other_steering_images  # accuracies on validation images stay comparable


# --- what they do -----------------------------------------------------------------------------------------


class Validated(Engine):
    """The hand-driven engine with test images of its own: accuracy 1/8."""

    def evaluate_test(self):
        self.calls.append(f"test {self.weights}")
        return replace(super().evaluate(), top1=0.125)


def test_test_images_are_evaluated_once_at_the_end_and_steer_nothing(tmp_path):
    engine = Validated([0.25, 0.75, 0.5])
    code, rows = run(tmp_path, engine, epochs=3, validation=0.1)
    assert code == 0
    assert [(row.step, row.split, row.top1) for row in rows if row.split != "train"] == [
        (3, "validation", 0.25), (6, "validation", 0.75), (9, "validation", 0.5), (9, "test", 0.125),
    ]  # fmt: skip
    assert engine.bests == [(3, 0.25), (6, 0.75)]
    assert engine.errors == [(3, 0.75), (6, 0.25), (9, 0.5)]
    assert engine.said[-1].startswith(
        "reached 12.50% on 8 test images after 9 steps (best 75.00% on the validation images, step 6); the run lies in "
    )


def test_stopped_and_resumed_it_is_the_run_that_nothing_stopped(tmp_path):
    straight = Validated([0.25, 0.75])
    _, expected = run(tmp_path / "straight", straight, validation=0.1)
    reads = iter([0] * 3 + [15] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    engine = Validated([0.25, 0.75])
    assert run(tmp_path, engine, validation=0.1, signals=signals)[0] == 128 + 15
    assert not any(call.startswith("test") for call in engine.calls)
    rest = Validated(engine.accuracies, saved=engine.saves[-1])
    assert run(tmp_path, rest, validation=0.1, resume=True) == (0, expected)
    assert rest.bests == [(6, 0.75)]


@pytest.mark.parametrize(
    ("validation", "schedule", "said"),
    [
        (
            None,
            "constant",
            "no --validation: the best weights are chosen by the test images, so figures",
        ),
        (None, "plateau", "chosen and the learning rate is lowered by the test images"),
        (0.1, "plateau", "lowered by the validation images; the test images are evaluated once, at the end"),
    ],
)
def test_it_is_said_which_images_steer(validation, schedule, said):
    assert said in steering.note(TrainSettings(validation=validation, schedule=schedule))


def test_the_curves_have_them(tmp_path):
    rows = [MetricsRow(step, step, split, 1.0, 0.5, 0.9) for step in (1, 2) for split in ("train", "validation")]
    assert draw_curves([*rows, MetricsRow(2, 2, "test", 1.0, 0.5)], tmp_path / "curves.png").exists()


# --- both programs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Both programs under a plateau, with an evaluation of the validation images after every step."""
    root, programs = tmp_path_factory.mktemp("twins"), JaxPrograms()
    (case,) = cases.choose(
        "cifar_18pct", "paper", "plateau", "synthetic:classes=10,train=28,test=21", 5, root / "c", 16
    )
    changed = replace(case.settings, learning_rate=0.02, batch_size=20, steps=4)
    case = cases.validating(replace(case, settings=changed))
    return case, *program.twin(case, root / "straight", programs), programs


def test_both_programs_are_steered_alike(twin):
    _, jax_run, torch_run, outcome, _ = twin
    assert outcome.equal, str(outcome)
    for record in (jax_run, torch_run):
        assert [row.split for row in record.rows].count("validation") == 4
        assert list(record.tests) == [4] and record.tests[4].examples == 21
        seen = {int(id) for step in record.steps for id in step.ids if id >= 0}
        assert len(seen) + record.evaluations[1].examples == 28 and record.evaluations[1].examples == 10
        assert "18 training, 10 validation and 21 test images" in record.said
        assert "lowered by the validation images" in record.said
    assert len({step.rate for step in jax_run.steps}) > 1, "the plateau would show no bug"


def test_killed_and_stopped_runs_go_on_as_if_nothing_had_happened(twin, tmp_path):
    case, jax_run, torch_run, _, programs = twin
    outcomes = list(program.disturbed(case, jax_run, torch_run, tmp_path, programs, (2,)))
    assert all(outcome.equal for outcome in outcomes), "\n".join(map(str, outcomes))


def test_a_run_that_the_test_images_steer_is_found(twin, tmp_path, monkeypatch):
    case, jax_run, _, _, _ = twin
    monkeypatch.setattr(TorchEngine, "evaluate", TorchEngine.evaluate_test)
    record = run_torch(case.at(tmp_path / "torch"), jax_run.first_parameters)
    found = list(both_sides.between(jax_run, record, differences.Largest()))
    assert min(found, key=lambda d: d.step).quantity == "evaluation, examples"
