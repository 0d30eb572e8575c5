"""What the training loop is made of, each part by itself: what is kept and when, whose data, speeds and rows."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_io.errors import FailedRun, UserError
from alexnet_io.run import run_log, saving, speed_meter
from alexnet_io.run.data_identity import refuse_other_data
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.metrics import read_metrics
from alexnet_io.run.run_log import RunLog
from alexnet_io.run.saving import Saving
from alexnet_io.run.speed_meter import SpeedMeter
from alexnet_io.run.state import RunState


class Engine:
    """Notes what it is asked to save."""

    steps_per_epoch = 3

    def __init__(self, finite: bool = True) -> None:
        self.finite, self.saved, self.bests = finite, [], []

    def weights_are_finite(self) -> bool:
        return self.finite

    def save(self, step: int, facts: dict[str, Any]) -> None:
        self.saved.append(step)

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        self.bests.append((step, top1))

    def fail(self, text: str) -> None:
        raise FailedRun(text)


def keeping(engine: Any, directory: Any = None, seconds: float = 0.0) -> Saving:
    return Saving(engine, {"train": "these"}, directory, seconds)


# --- checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_end_is_saved_unless_the_newest_checkpoint_says_it_all(step: int) -> None:
    engine = Engine()
    kept = keeping(engine)
    for _ in range(2):
        kept.catch_up(RunState(step))
        assert engine.saved == [step]  # once: the second time nothing is new
    kept.forget()
    kept.catch_up(RunState(step))
    kept.catch_up(RunState(step + 1))
    assert engine.saved == [step, step, step + 1]


def test_a_checkpoint_is_due_when_the_last_one_is_as_old_as_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [7.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    kept = keeping(Engine(), seconds=15.0)
    assert not kept.is_due
    for began in (7.0, 40.0):
        for seconds, due in ((0.0, False), (14.5, False), (15.0, True), (33.0, True)):
            now[0] = began + seconds
            assert kept.is_time() is due, (began, seconds)
        kept.is_due = True
        kept.save(RunState(4))
        assert not kept.is_due


@pytest.mark.parametrize(
    ("directory", "where"),
    [(None, ""), (SimpleNamespace(checkpoints=Path("runs/a/checkpoints")), " in runs/a/checkpoints")],
)
def test_weights_that_are_not_finite_are_told_of_with_what_is_left(directory: Any, where: str) -> None:
    engine = Engine(finite=False)
    for save in (Saving.save, Saving.save_best):
        with pytest.raises(FailedRun) as failed:
            save(keeping(engine, directory), RunState(5))
        assert str(failed.value) == (
            "the weights are no longer finite after step 5; they are not saved. The last finite checkpoint is kept"
            f"{where}: use a smaller --learning-rate"
        )
    assert not engine.saved and not engine.bests


# --- what they keep ---------------------------------------------------------------------------------------


def test_a_state_comes_back_from_its_facts_which_say_how_many_epochs_are_done() -> None:
    state = RunState(7, 0.5, Sums(1.0, 2.0, 3.0, 4.0), Sums(5.0, 6.0, 7.0, 8.0), 0.25, 6, 3)
    assert RunState.restored(7, state.facts(3)) == state
    assert [RunState(step).facts(3)["epoch"] for step in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_no_evaluation_at_all_is_told_from_one_that_found_nothing_right() -> None:
    """Checkpoints of earlier versions say -1 for none."""
    fresh, facts = RunState(), RunState(4).facts(3)
    assert (fresh.known_best, facts["best"], fresh.best_step) == (None, None, 0)
    assert fresh.best < 0.0  # the first evaluation is the best so far, whatever it finds
    assert RunState.restored(4, {**facts, "best": -1.0}) == RunState.restored(4, facts) == RunState(4)
    for best in (0.0, 0.5, 1.0):
        found = RunState.restored(4, {**facts, "best": best, "best_step": 3})
        assert (found.best, found.known_best, found.best_step) == (best, best, 3)
        found.forget_best()
        assert (found.best, found.known_best, found.best_step) == (-math.inf, None, 0)


# --- whose data -------------------------------------------------------------------------------------------

SAVED = {"train": {"examples": 10, "digest": "a"}, "test": {"examples": 8, "digest": "b"}, "classes": 4}
VALIDATED = {**SAVED, "validation": {"examples": 5, "digest": "c"}}
OTHER = {"examples": 5, "digest": "d"}


@pytest.mark.parametrize(
    ("saved", "now", "found", "steering"),
    [
        (
            VALIDATED,
            {**VALIDATED, "validation": OTHER},
            "5 validation images as then, but other pictures",
            "validation",
        ),
        (VALIDATED, {**VALIDATED, "test": OTHER}, "8 test images then, 5 now", None),
        (SAVED, {**SAVED, "test": OTHER, "classes": 3}, "8 test images then, 5 now; 4 classes then, 3 now", "test"),
        # Where a split is only in one of them there is nothing to compare it with.
        (SAVED, {**VALIDATED, "train": OTHER}, "10 training images then, 5 now", "validation"),
        (VALIDATED, {**SAVED, "train": OTHER}, "10 training images then, 5 now", None),
    ],
)
def test_the_best_is_chosen_anew_where_the_images_that_choose_it_are_others(
    saved: Any, now: Any, found: str, steering: str | None
) -> None:
    """Those of --validation, where a run has them, and not the test images."""
    assert refuse_other_data(now, dict(now), 7, 3, allowed=False) is None
    assert refuse_other_data(None, now, 7, 3, allowed=False) is None
    meaning = "the 7 steps done then count as 2 epochs and 1 steps of 3 to an epoch"
    with pytest.raises(UserError) as refused:
        refuse_other_data(saved, now, 7, 3, allowed=False)
    told = refuse_other_data(saved, now, 7, 3, allowed=True)
    assert told is not None
    for text in (str(refused.value), told.warning):
        assert f"({found}" in text and meaning in text
    assert told.other_steering_images == (steering is not None)
    ending = f"; the best is chosen anew, among accuracies on the new {steering} images"
    assert told.warning.endswith(ending if steering else "orders go on from there")


# --- speeds and rows --------------------------------------------------------------------------------------


def test_speeds_are_images_by_seconds_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2.0]
    monkeypatch.setattr(speed_meter.time, "perf_counter", lambda: now[0])
    meter = SpeedMeter()
    meter.restart()  # before the first step there is nothing to leave out
    meter.count(100)
    assert meter.speed is None
    for seconds, images, speed in ((2.5, 8, 8 / 2.5), (1.5, 3, 11 / 4), (0.0, 1, 12 / 4)):
        now[0] += seconds
        meter.count(images)
        assert meter.speed == speed
    meter.restart()
    assert meter.speed == 12 / 4  # until it is measured anew
    for seconds, speed in ((0.0, 4 / 1e-9), (0.5, 8 / 0.5)):  # a clock may stand still for a step
        now[0] += seconds
        meter.count(4)
        assert meter.speed == pytest.approx(speed)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bars that were shown, each with what it was told."""
    shown: list[Any] = []

    class Bar:
        def __init__(self, total: int, *, start: int, preparing: str) -> None:
            self.range, self.preparing, self.told = (start, total), preparing, []
            shown.append(self)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            self.told.append("closed")

        def update(self, number: int, **words: Any) -> None:
            self.told.append((number, words))

        def message(self, text: str) -> None:
            self.told.append(text)

    monkeypatch.setattr(run_log, "Progress", Bar)
    return shown


def opened(tmp_path: Path, step: int, last_step: int, *, resume: bool = True) -> Any:
    directory: Any = SimpleNamespace(path=tmp_path)
    settings: Any = SimpleNamespace(resume=resume, tensorboard=False)
    engine: Any = SimpleNamespace(preparing="thinking")
    log = RunLog()
    return log, log.opened(directory, settings, engine, step, last_step)


@pytest.mark.parametrize(("step", "shown"), [(0, True), (5, True), (6, False), (7, False)])
def test_a_bar_is_shown_where_a_step_is_left(tmp_path: Path, bars: list[Any], step: int, shown: bool) -> None:
    """A run that has its last step behind it, or more, shows none."""
    log, context = opened(tmp_path, step, 6)
    with context:
        log.step(step + 1, 0.25, Sums(1.0, 1.0, 2.0, 4.0))
        log.message("a line")
    assert len(bars) == shown
    if shown:
        (bar,) = bars
        words = {"epoch": 0.25, "loss": 0.25, "top1": 0.25, "images_per_second": None}
        assert (bar.range, bar.preparing) == ((step, 6), "thinking")
        assert bar.told == [(step + 1, words), "a line", "closed"]


def test_rows_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path: Path, bars: list[Any]) -> None:
    log, context = opened(tmp_path, 0, 6, resume=False)
    with context:
        for step in (2, 4, 6):
            log.training(step, step / 3, Sums(1.0, 1.0, 2.0, 4.0), 0.1)
    log, context = opened(tmp_path, 4, 6)
    with context:
        pass
    assert [row.step for row in read_metrics(tmp_path)] == [2, 4]


def test_an_evaluations_speed_is_its_images_by_its_seconds(tmp_path: Path, bars: list[Any]) -> None:
    report = EvaluationReport(8, 0.5, 1.0, 1.5, {}, np.eye(4, dtype=np.int64))
    log, context = opened(tmp_path, 0, 6)
    with context:
        for step, seconds in ((3, 2.5), (6, 0.0)):  # a clock may stand still for a short one
            log.evaluation(step, step // 3, "test", report, 0.1, seconds)
    speeds = [row.images_per_second for row in read_metrics(tmp_path)]
    assert speeds == pytest.approx([8 / 2.5, 8 / 1e-9])
    assert bars[0].told[0] == "epoch 1: test loss 1.5000, accuracy 50.00% of 8"
