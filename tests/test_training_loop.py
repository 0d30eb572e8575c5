"""The loop that both frameworks plug into, driven by an engine that computes by hand: what it counts and decides."""

import contextlib
import csv
import math
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import Batch
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.run import loop as training_loop
from alexnet_io.run import run_log, speed_meter
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation_report import ClassCount, EvaluationReport
from alexnet_io.run.loop import TrainingLoop
from alexnet_io.run.metrics import read_metrics
from jax_alexnet.recipes import resolve

DATA = {"train": {"examples": 10, "digest": "a"}, "test": {"examples": 8, "digest": "b"}, "classes": 4}
PER_EPOCH = 3


class Engine:
    """Ten examples in batches of four; losses, accuracies and rates are set by hand; what is called is noted."""

    preparing, runs_ahead, steps_per_epoch = "thinking", False, PER_EPOCH

    def __init__(self, accuracies=(), losses=None, saved=None):
        self.calls, self.said, self.saves, self.bests, self.errors = [], [], [], [], []
        self.accuracies, self.losses, self.saved = list(accuracies), losses or {}, saved
        self.finite, self.waiting, self.votes = True, None, []
        self.weights = 0  # steps taken

    def say(self, text):
        self.said.append(text)

    def fail(self, text):
        raise FailedRun(text)

    def start(self):
        self.calls.append("start")

    def restore(self):
        if self.saved is not None:
            self.weights = self.saved[0]
        return self.saved

    def batches(self, step):
        for number in range(step % PER_EPOCH, PER_EPOCH):
            real = np.array([1, 1, 1, 1] if number < 2 else [1, 1, 0, 0], np.float32)
            ids = np.where(real > 0, np.arange(4) + 4 * number, -1)
            yield Batch(np.zeros((4, 1, 1, 3), np.uint8), np.zeros(4, np.int32), real, ids)

    def learning_rate(self, step):
        return 1 / (1 + step)

    def train(self, batch, step, rate):
        assert rate == self.learning_rate(step)
        assert self.weights == step
        self.weights += 1
        self.calls.append(f"train {self.weights}")
        return self.weights, float(batch.weights.sum())

    def fetch(self, handle):
        number, examples = handle
        self.calls.append(f"fetch {number}")
        loss = self.losses.get(number, number / 8)
        return Sums(loss * examples, examples / 2, examples, examples)

    def agree(self, stop, save):
        self.votes.append((stop, save))
        return stop, save

    def evaluate(self):
        self.calls.append(f"evaluate {self.weights}")
        top1 = self.accuracies.pop(0) if self.accuracies else 0.25
        counts = {name: ClassCount(1, 2) for name in "abcd"}
        return EvaluationReport(8, top1, 1.0, 1.5, counts, np.eye(4, dtype=np.int64))

    def evaluate_test(self):
        raise AssertionError("the test images steer these runs: nothing else is evaluated")

    def count_error(self, error):
        self.errors.append((self.weights, error))

    def weights_are_finite(self):
        return self.finite

    @contextlib.contextmanager
    def trace(self, path):
        self.calls.append(f"trace {path.name}")
        yield
        self.calls.append("traced")

    def saving(self, directory):
        return contextlib.nullcontext()

    def save(self, step, facts):
        assert step == self.weights
        self.calls.append(f"save {step}")
        self.saves.append((step, facts))

    def save_best(self, step, facts, top1):
        self.bests.append((step, top1))

    def first_kernel(self):
        return np.zeros((3, 3, 3, 8), np.float32)


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Drawing takes longer than all else: only the tests that ask for `pictures` draw."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(training_loop.pictures, "draw", lambda *_: None)


@pytest.fixture
def pictures():
    """For tests of the pictures at the end of a run."""


def settings(**changed):
    return resolve(
        TrainSettings(**{"epochs": 2, "log_every": 2, "checkpoint_seconds": 1e9, "schedule": "constant", **changed})
    )


def no_signal() -> Any:
    return SimpleNamespace(received=0)


def run(tmp_path, engine, *, identity=DATA, signals: Any = None, directory=True, callbacks=(), **changed):
    """The exit code of a run and the rows it left, without speeds."""
    chosen = settings(**changed)
    with RunDirectory(tmp_path / "run", resume=chosen.resume) as where:
        if not chosen.resume:
            where.describe(model="m", class_names=list("abcd"), normalisation={}, settings={})
        loop = TrainingLoop(engine, chosen, identity, where if directory else None, signals or no_signal(), callbacks)
        loop.begin()
        code = loop.go()
    rows = read_metrics(where.path) if (where.path / "metrics.jsonl").exists() else []
    return code, [replace(row, images_per_second=None) for row in rows]


def numbers(rows, split):
    return [(row.step, row.epoch, row.loss, row.learning_rate) for row in rows if row.split == split]


def test_rows_average_over_examples_and_carry_the_rate_of_their_step(tmp_path):
    code, rows = run(tmp_path, Engine([0.5, 0.75]))
    assert code == 0
    # Batches have 4, 4 and 2 examples; losses are number / 8. Rows: every second step, and the end of an epoch.
    expected = [
        (2, 2 / 3, (1 * 4 + 2 * 4) / 8 / 8, 1 / 2),
        (3, 1.0, 3 / 8, 1 / 3),
        (4, 4 / 3, 4 / 8, 1 / 4),
        (6, 2.0, (5 * 4 + 6 * 2) / 6 / 8, 1 / 6),
    ]
    assert numbers(rows, "train") == [pytest.approx(row) for row in expected]
    assert [(row.top1, row.top5) for row in rows if row.split == "train"] == [(0.5, 1.0)] * 4
    assert numbers(rows, "test") == [(3, 1, 1.5, 1 / 3), (6, 2, 1.5, 1 / 6)]
    assert [row.top1 for row in rows if row.split == "test"] == [0.5, 0.75]
    with open(tmp_path / "run" / "metrics.csv", newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "3", "3", "4", "6", "6"]


def test_the_last_step_is_measured_whatever_it_is(tmp_path, pictures):
    """Fewer steps than a row or an epoch take, and an end between two of them."""
    for steps, train, test in ((1, [1], [1]), (2, [2], [2]), (5, [2, 3, 4, 5], [3, 5])):
        engine = Engine([0.5, 0.75])
        code, rows = run(tmp_path / str(steps), engine, steps=steps)
        assert code == 0
        assert [row.step for row in rows if row.split == "train"] == train
        assert [row.step for row in rows if row.split == "test"] == test
        assert engine.saves[-1][0] == engine.weights == steps
        assert engine.bests[-1][0] == steps
        assert f"after {steps} steps" in engine.said[-1]
        assert {path.name for path in (tmp_path / str(steps) / "run").glob("*.png")} == {
            "curves.png", "filters.png", "confusion.png"
        }  # fmt: skip
    assert rows[-1].epoch == pytest.approx(5 / 3)
    assert rows[-1].learning_rate == 1 / 5
    assert engine.errors == [(3, 0.5)]  # the middle of an epoch is nothing that a plateau counts


def test_the_first_of_equals_is_the_best_and_is_what_is_told(tmp_path):
    engine = Engine([0.25, 0.75, 0.75, 0.5])
    run(tmp_path, engine, epochs=4)
    assert engine.bests == [(3, 0.25), (6, 0.75)]
    assert engine.said[-1].startswith("reached 50.00% on 8 test images after 12 steps (best 75.00%, step 6); the run")
    assert engine.saves[-1][1]["best"] == 0.75
    assert engine.saves[-1][1]["best_step"] == 6
    assert engine.errors == [(3, 0.75), (6, 0.25), (9, 0.25), (12, 0.5)]


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ({"evaluate_every": 2, "epochs": 5}, [6, 12, 15]),
        ({"evaluate_every": 3, "epochs": 2}, [6]),
        ({"evaluate_every": 2, "epochs": 3, "schedule": "plateau"}, [3, 6, 9]),
        ({"evaluate_every": 1, "epochs": 9, "steps": 4}, [3, 4]),
    ],
)
def test_when_it_evaluates_and_writes_rows(tmp_path, changed, steps):
    _, rows = run(tmp_path, Engine(), **changed)
    assert [row.step for row in rows if row.split == "test"] == steps
    train, last = [row.step for row in rows if row.split == "train"], steps[-1]
    assert train == [step for step in range(1, last + 1) if step % 2 == 0 or step % PER_EPOCH == 0 or step == last]


def test_it_saves_when_time_is_up_and_at_the_end_of_an_epoch_only_after_the_evaluation(tmp_path):
    engine = Engine([0.5, 0.75, 0.25])
    run(tmp_path, engine, checkpoint_seconds=0.0, epochs=3)
    assert [step for step, _ in engine.saves] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for step in (3, 6):
        calls = [engine.calls.index(what) for what in (f"evaluate {step}", f"save {step}", f"train {step + 1}")]
        assert calls == sorted(calls)
    assert engine.saves[2][1]["best"] == 0.5
    facts = engine.saves[3][1]
    assert facts["sums"] == asdict(Sums()) and facts["rate"] == 1 / 4 and facts["epoch"] == 1 and facts["data"] == DATA
    assert engine.saves[0][1]["sums"] == {"loss": 0.5, "top1": 2.0, "top5": 4.0, "examples": 4.0}
    assert engine.saves[0][1]["best"] is None
    engine = Engine()
    run(tmp_path / "seldom", engine)
    assert [step for step, _ in engine.saves] == [6]


def test_seconds_between_checkpoints_are_counted_from_the_last_one(tmp_path, monkeypatch):
    engine, began = Engine(), time.monotonic()
    monkeypatch.setattr(training_loop.time, "monotonic", lambda: began + 10 * engine.weights)  # ten seconds a step
    run(tmp_path, engine, checkpoint_seconds=15.0)
    assert [step for step, _ in engine.saves] == [2, 4, 6]


def test_an_epochs_end_and_a_step_within_one_are_told_apart(tmp_path, monkeypatch):
    said, shown = [], []
    monkeypatch.setattr(run_log.Progress, "message", lambda self, text: said.append(text))
    monkeypatch.setattr(run_log.Progress, "update", lambda self, step, epoch, **_: shown.append((step, epoch)))
    run(tmp_path, Engine([0.5, 0.25, 0.75]), epochs=3, steps=7)
    assert said == [
        "epoch 1: test loss 1.5000, accuracy 50.00% of 8",
        "epoch 2: test loss 1.5000, accuracy 25.00% of 8",
        "step 7, epoch 2.33: test loss 1.5000, accuracy 75.00% of 8",
    ]
    assert shown == [(step, pytest.approx(step / 3)) for step in range(1, 8)]


def test_steps_that_run_ahead_are_counted_one_later_and_change_nothing(tmp_path):
    ahead, in_step = Engine([0.5, 0.75]), Engine([0.5, 0.75])
    ahead.runs_ahead = True
    _, rows = run(tmp_path / "ahead", ahead)
    assert rows == run(tmp_path / "in step", in_step)[1]
    assert ahead.calls[:6] == ["start", "train 1", "train 2", "fetch 1", "train 3", "fetch 2"]
    assert ahead.calls[6:8] == ["fetch 3", "evaluate 3"]
    assert in_step.calls[:5] == ["start", "train 1", "fetch 1", "train 2", "fetch 2"]
    # Saved only once all of its steps are counted.
    ahead = Engine()
    ahead.runs_ahead = True
    run(tmp_path / "saving", ahead, checkpoint_seconds=0.0)
    assert ahead.calls.index("fetch 1") < ahead.calls.index("save 1") < ahead.calls.index("train 2")


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_stopped_and_resumed_it_is_the_run_that_nothing_stopped(tmp_path, stop, ahead):
    accuracies = [0.5, 0.25]
    straight = Engine(accuracies)
    _, expected = run(tmp_path / "straight", straight)
    engine = Engine(accuracies)
    engine.runs_ahead = ahead
    reads = iter([0] * (stop - 1) + [15] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    code, _ = run(tmp_path, engine, signals=signals)
    assert code == 128 + 15
    assert engine.said[-1] == f"stopped by signal 15 after step {stop}; go on with --resume --output {tmp_path / 'run'}"
    assert engine.saves[-1][0] == stop
    assert ("evaluate 3" in engine.calls) == (stop >= 3)
    rest = Engine(engine.accuracies, saved=engine.saves[-1])
    assert run(tmp_path, rest, resume=True) == (0, expected)
    assert rest.calls[0] == f"train {stop + 1}"
    assert rest.saves[-1] == straight.saves[-1]
    assert rest.said[-1].partition(";")[0] == straight.said[-1].partition(";")[0]


def test_a_signal_in_the_last_step_finds_a_finished_run(tmp_path):
    reads = iter([0] * 5 + [2] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    engine = Engine()
    assert run(tmp_path, engine, signals=signals)[0] == 0
    assert engine.said[-1].startswith("reached ")


def test_a_finished_run_resumed_says_so_and_measures_nothing_twice(tmp_path):
    engine = Engine([0.5, 0.25])
    _, rows = run(tmp_path, engine)
    again = Engine([0.25], saved=engine.saves[-1])
    assert run(tmp_path, again, resume=True) == (0, rows)
    assert not again.bests and not any(call.startswith(("train", "save")) for call in again.calls)
    assert len(again.said) == 2
    assert again.said[0] == "the run has already reached step 6, its last one: raise --epochs or --steps to train on"
    assert again.said[-1].startswith("reached 25.00% on 8 test images after 6 steps (best 50.00%, step 3)")
    shorter = Engine(saved=engine.saves[-1])
    run(tmp_path, shorter, resume=True, epochs=1)
    assert shorter.said[0].startswith("the run has already reached step 6, beyond step 3, the last asked for: raise")
    assert len(shorter.said) == 2 and shorter.said[1].startswith("reached ")
    longer = Engine([0.75], saved=engine.saves[-1])
    _, rows = run(tmp_path, longer, resume=True, epochs=3)
    assert [row.step for row in rows if row.split == "test"] == [3, 6, 9]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": {"examples": 9, "digest": "c"}}, "10 training images then, 9 now"),
        ({"train": {"examples": 10, "digest": "c"}}, "10 training images as then, but other pictures"),
        ({"test": {"examples": 9, "digest": "c"}}, "8 test images then, 9 now"),
        ({"classes": 5}, "4 classes then, 5 now"),
        ({"classes": 3}, "4 classes then, 3 now"),
    ],
)
def test_other_data_are_refused_or_told_of(tmp_path, changed, said):
    engine = Engine([0.5, 0.25])
    run(tmp_path, engine)
    other = {**DATA, **changed}
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path, Engine(saved=engine.saves[-1]), identity=other, resume=True, epochs=3)
    assert "--changed-data" in str(error.value) and "6 steps done then count as 2 epochs and 0 steps" in str(
        error.value
    )
    assert not isinstance(error.value, FailedRun)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    rest = Engine([0.375], saved=engine.saves[-1])
    assert run(tmp_path, rest, identity=other, resume=True, epochs=3, changed_data=True)[0] == 0
    assert said in rest.said[0] and rest.said[0].startswith("warning: ")
    assert rest.said[0].endswith("the best is chosen anew, among accuracies on the new test images") == (
        "test" in changed
    )
    # Accuracies on other test images can't be compared: the best is chosen anew.
    assert rest.bests == ([(9, 0.375)] if "test" in changed else [])


def test_a_checkpoint_that_does_not_say_which_data_it_had_goes_on(tmp_path):
    """Those of earlier versions: sums in a list, no rate, and -1 for no best yet."""
    engine = Engine()
    run(tmp_path, engine, steps=4)
    facts = {"best": -1.0, "best_step": 0, "sums": [1.0, 1.0, 4.0, 4.0], "flat_since": None}
    rest = Engine([0.5], saved=(4, facts))
    code, rows = run(tmp_path, rest, resume=True)
    assert code == 0 and rest.bests == [(6, 0.5)]
    assert rows[-2].loss == pytest.approx((1.0 + 4 * 5 / 8 + 2 * 6 / 8) / 10)
    # With nothing left to train, the rate is what the schedule has for the last step, the fourth.
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    _, rows = run(tmp_path, Engine([0.5], saved=(4, facts)), resume=True, steps=4)
    assert [row.learning_rate for row in rows if row.split == "test"] == [1 / 4]


def test_a_stop_and_then_an_end_at_the_same_step_keep_what_the_evaluation_found(tmp_path):
    """The checkpoint of the stop knows of no evaluation; one that says it all takes its place."""
    engine, signals = Engine(), SimpleNamespace(received=15)
    assert run(tmp_path, engine, signals=signals)[0] == 128 + 15
    assert [(step, facts["best"]) for step, facts in engine.saves] == [(1, None)]
    rest = Engine([0.5], saved=engine.saves[-1])
    assert run(tmp_path, rest, resume=True, steps=1)[0] == 0
    assert [(step, facts["best"], facts["best_step"]) for step, facts in rest.saves] == [(1, 0.5, 1)]


def test_a_first_evaluation_that_finds_nothing_right_is_the_best_so_far(tmp_path):
    engine = Engine([0.0, 0.0])
    run(tmp_path, engine)
    assert engine.bests == [(3, 0.0)]
    rest = Engine([0.0, 0.25], saved=engine.saves[-1])
    run(tmp_path, rest, resume=True, epochs=4)
    assert rest.bests == [(12, 0.25)]


def test_on_other_images_patience_is_counted_anew(tmp_path):
    """The best of the old ones is as many epochs old as patience has, and says nothing."""
    engine = Engine([0.5, 0.25])
    run(tmp_path, engine, patience=1)
    rest = Engine([0.0, 0.0], saved=engine.saves[-1])
    other = {**DATA, "test": {"examples": 8, "digest": "c"}}
    run(tmp_path, rest, identity=other, resume=True, patience=1, epochs=9, changed_data=True)
    assert rest.bests == [(9, 0.0)] and rest.saves[-1][0] == 12


def test_nothing_saved_starts_from_the_first_step(tmp_path):
    engine = Engine()
    run(tmp_path, Engine(), steps=1)
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    run(tmp_path, engine, resume=True)
    assert engine.said[0] == "no checkpoint was finished: the run starts from its first step"
    assert engine.calls[:2] == ["start", "train 1"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_saves_nothing(tmp_path, value):
    engine = Engine(losses={3: value})
    with pytest.raises(
        FailedRun, match=r"became (nan|inf) at step 3 \(images \[8, 9\]\.\.\.\)\. .*finite checkpoint is kept in"
    ):
        run(tmp_path, engine)
    assert not engine.saves


def test_of_a_large_batch_the_first_eight_images_are_named(tmp_path, monkeypatch):
    def batches(self, step):
        ids = np.array([-1, *range(20, 31)])
        yield Batch(np.zeros((12, 1, 1, 3), np.uint8), np.zeros(12, np.int32), (ids > 0).astype(np.float32), ids)

    monkeypatch.setattr(Engine, "batches", batches)
    with pytest.raises(FailedRun, match=r"\(images \[20, 21, 22, 23, 24, 25, 26, 27\]\.\.\.\)"):
        run(tmp_path, Engine(losses={1: math.nan}))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    engine = Engine()
    engine.finite = False
    with pytest.raises(FailedRun, match="no longer finite after step 3"):
        run(tmp_path, engine)
    assert not engine.saves and not engine.bests


def test_a_picture_that_fails_spoils_nothing(tmp_path, monkeypatch, pictures):
    from alexnet_io.run import plots

    def fails(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plots, "draw_filters", fails)
    engine = Engine()
    assert run(tmp_path, engine, steps=1)[0] == 0
    assert any("pictures could not all be drawn (RuntimeError: no fonts)" in line for line in engine.said)
    assert engine.said[-1].startswith("reached ")


def test_the_first_step_is_left_out_of_speeds(tmp_path, monkeypatch):
    """It may compile: here for 100 seconds, where the others take one."""
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0])
    for module in (training_loop, speed_meter):
        monkeypatch.setattr(module, "time", clock)

    class Slow(Engine):
        def train(self, batch, step, rate):
            now[0] += 1 if step else 100
            return super().train(batch, step, rate)

        def evaluate(self):
            now[0] += 512
            return super().evaluate()

    chosen = settings(log_every=1)
    with RunDirectory(tmp_path / "run") as where:
        where.describe(model="m", class_names=list("abcd"), normalisation={}, settings={})
        loop = TrainingLoop(Slow(), chosen, DATA, where, no_signal())
        loop.begin()
        loop.go()
    speeds = [(row.step, row.split, row.images_per_second) for row in read_metrics(tmp_path / "run")]
    assert speeds == [
        (1, "train", None), (2, "train", 4.0), (3, "train", 2.0), (3, "test", 8 / 512),
        (4, "train", 4.0), (5, "train", 4.0), (6, "train", 2.0), (6, "test", 8 / 512),
    ]  # fmt: skip


def test_other_processes_train_and_write_nothing(tmp_path):
    engine = Engine()
    assert run(tmp_path, engine, directory=False)[0] == 0
    assert [step for step, _ in engine.saves] == [6]  # the engine decides which process writes
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list((tmp_path / "run").glob("*.png"))


def test_a_loss_that_never_leaves_chance_is_told_of_across_a_stop(tmp_path, capsys):
    losses = dict.fromkeys(range(1, 2000), math.log(4))
    engine = Engine(losses=losses)
    run(tmp_path, engine, epochs=300)
    assert engine.saves[-1][1]["flat_since"] == 1
    assert "the loss has not left" not in capsys.readouterr().out
    rest = Engine(losses=losses, saved=engine.saves[-1])
    run(tmp_path, rest, epochs=340, resume=True)
    assert capsys.readouterr().out.count("for 1000 steps the loss has not left 1.386") == 1


def test_it_stops_where_the_best_is_as_old_as_its_patience(tmp_path):
    accuracies = [0.25, 0.75, 0.75, 0.5, 0.875]
    engine = Engine(accuracies)
    code, rows = run(tmp_path, engine, epochs=9, patience=2)
    assert code == 0
    assert [row.step for row in rows if row.split == "test"] == [3, 6, 9, 12]
    assert engine.saves[-1][0] == 12
    assert engine.said[-2] == (
        "stopped early after epoch 4: the best accuracy on the test images, 75.00% at step 6, is --patience 2 epoch(s) "
        "old"
    )
    assert engine.said[-1].startswith("reached 50.00% on 8 test images after 12 steps (best 75.00%, step 6); the run")
    # Asked again it ends at once, as it is; with more patience it goes on.
    again = Engine([0.5], saved=engine.saves[-1])
    assert run(tmp_path, again, epochs=9, patience=2, resume=True) == (0, rows)
    assert again.said[0] == "the run has stopped early, at step 12: raise --patience to train on"
    assert not any(call.startswith(("train", "save")) for call in again.calls)
    longer = Engine(accuracies[4:] + [0.25] * 4, saved=engine.saves[-1])
    _, rows = run(tmp_path, longer, epochs=9, patience=3, resume=True)
    assert [row.step for row in rows if row.split == "test"][-1] == 24 and longer.bests == [(15, 0.875)]


@pytest.mark.parametrize("stop", [4, 6, 8, 11])
def test_patience_is_counted_on_where_a_run_was_stopped(tmp_path, stop):
    accuracies, reads = [0.25, 0.75, 0.5, 0.5, 0.875], iter([0] * (stop - 1) + [15] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    engine = Engine(accuracies)
    assert run(tmp_path, engine, signals=signals, epochs=9, patience=2)[0] == 128 + 15
    rest = Engine(engine.accuracies, saved=engine.saves[-1])
    _, rows = run(tmp_path, rest, epochs=9, patience=2, resume=True)
    assert [row.step for row in rows if row.split == "test"] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("every", "patience", "last"), [(2, 1, 12), (2, 2, 12), (2, 3, 18), (2, 5, 24), (3, 1, 18), (3, 4, 27), (1, 6, 21)]
)
def test_patience_is_in_epochs_however_seldom_it_evaluates(tmp_path, every, patience, last):
    """The best is after the first evaluation: at step 6 of every second epoch's, at step 9 of every third's."""
    _, rows = run(tmp_path, Engine([0.5] + [0.25] * 9), epochs=9, patience=patience, evaluate_every=every)
    assert rows[-1].step == last


def test_callbacks_are_told_of_every_epoch(tmp_path):
    records, other = [], []
    run(
        tmp_path, Engine([0.5, 0.75]), callbacks=[records.append, other.append], epochs=3, evaluate_every=2, log_every=1
    )
    assert records == other and [(r.epoch, r.step, r.last_step) for r in records] == [(1, 3, 9), (2, 6, 9), (3, 9, 9)]
    # Losses are number / 8 in batches of 4, 4 and 2 examples, whatever rows were written meanwhile.
    assert [r.train.loss for r in records] == pytest.approx([1.8 / 8, 4.8 / 8, 7.8 / 8])
    assert all(isinstance(r.epoch, int) for r in records)
    assert [(r.train.examples, r.train.top1, r.train.top5) for r in records] == [(10, 0.5, 1.0)] * 3
    assert [r.learning_rate for r in records] == [1 / 3, 1 / 6, 1 / 9]
    assert [r.evaluation and r.evaluation.top1 for r in records] == [None, 0.5, 0.75]
    assert [(r.best, r.best_step, r.split) for r in records] == [(None, 0, "test"), (0.5, 6, "test"), (0.75, 9, "test")]
    assert records[0].directory == (tmp_path / "run").resolve()
    assert all(r.images_per_second is not None for r in records)


def test_a_resumed_epoch_is_told_of_whole(tmp_path):
    straight, records = [], []
    run(tmp_path / "straight", Engine(), callbacks=[straight.append])
    reads = iter([0] * 3 + [15] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    engine = Engine()
    run(tmp_path, engine, signals=signals, callbacks=[records.append])
    run(tmp_path, Engine(saved=engine.saves[-1]), resume=True, callbacks=[records.append])
    assert [r.train for r in records] == [r.train for r in straight]


@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_callback_raises_is_its_own_and_the_run_is_saved(tmp_path, ahead):
    def fails(record):
        raise KeyError(f"epoch {record.epoch}")

    engine = Engine([0.5, 0.25])
    engine.runs_ahead = ahead
    with pytest.raises(KeyError, match="epoch 1"):
        run(tmp_path, engine, callbacks=[fails])
    assert [step for step, _ in engine.saves] == [3] and engine.saves[0][1]["best"] == 0.5
    rest = Engine(engine.accuracies, saved=engine.saves[-1])
    _, expected = run(tmp_path / "straight", Engine([0.5, 0.25]))
    assert run(tmp_path, rest, resume=True) == (0, expected)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    ("steps", "first", "last"), [(20, 3, 7), (6, 2, 6), (2, 1, 2)], ids=["long", "short", "shorter"]
)
def test_five_steps_are_traced_from_the_third_one_on(tmp_path, steps, first, last, ahead):
    engine = Engine()
    engine.runs_ahead = ahead
    run(tmp_path, engine, epochs=9, steps=steps, profile=tmp_path / "seen")
    assert engine.calls[engine.calls.index("trace seen") + 1] == f"train {first}"
    done = engine.calls.index("traced")
    assert f"train {last}" in engine.calls[:done] and f"fetch {last}" in engine.calls[:done]
    assert f"train {last + 1}" not in engine.calls[:done]
    assert any(line.startswith(f"steps {first} to {last} are traced in") for line in engine.said)


def test_a_trace_is_written_where_a_signal_comes_into_it(tmp_path):
    reads = iter([0] * 3 + [15] * 9)
    signals = type("Signals", (), {"received": property(lambda self: next(reads))})()
    engine = Engine()
    run(tmp_path, engine, epochs=9, profile=tmp_path / "seen", signals=signals)
    assert "train 4" in engine.calls and "train 5" not in engine.calls and "traced" in engine.calls
