"""One judge for all that is compared: what isn't finite or isn't there is never within a bound, anywhere."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from tiny import complete_settings

from parity.alexnet import clean_runs, data_causes, envelope, trajectory
from parity.alexnet import optimizer_causes as rules
from parity.alexnet.trainers import Material
from parity.bounds.judging import (
    difference,
    distance,
    farthest,
    judge,
    judge_together,
    judge_worst,
    normwise,
    share_used,
    within,
)
from parity.causes.between import between_layers as chain_causes
from parity.causes.layer import gradients as gradient_causes
from parity.causes.layer import parameters as causes
from parity.causes.layer.parameters import Case
from parity.comparison.end_to_end import _normwise
from parity.kinds import layouts
from parity.kinds.activation import ReLU
from parity.reports.report import Report
from parity.reports.rows import Row
from parity.speed import checks, commands, statistics
from parity.speed.result import Result, Timing
from parity.speed.settings import Throughput
from parity.speed.statistics import Interval
from parity.speed.workload import Workload

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("allowed", [0.0, 1.0, INF])
@pytest.mark.parametrize(("ours", "theirs", "verdict"), [
    (NAN, 1.0, "mismatch"), (1.0, NAN, "mismatch"), (INF, 1.0, "mismatch"), (INF, -INF, "mismatch"),
    (NAN, INF, "mismatch"), (NAN, NAN, "not finite"), (INF, INF, "not finite"), (-INF, -INF, "not finite"),
    (1.0, 1.0, "equal"), (-0.0, 0.0, "equal"),
])  # fmt: skip
def test_what_is_not_finite_is_within_no_bound(allowed: float, ours: float, theirs: float, verdict: str) -> None:
    found = judge(np.array([0.0, ours, 0.0]), np.array([0.0, theirs, 0.0]), allowed)
    assert found.verdict == verdict
    assert found.equal is (verdict == "equal")
    if not found.equal:
        assert (found.error, found.fraction, found.largest, found.index) == (INF, INF, INF, (1,))
        assert found.detail
    assert judge(ours, theirs, allowed).verdict == verdict  # of no dimensions
    for measured in (farthest, distance, normwise):
        assert math.isinf(measured(np.array([ours, 1.0]), np.array([theirs, 1.0]))) is (verdict != "equal")


def test_a_real_difference_is_told_before_what_both_sides_have_not() -> None:
    ours, theirs = np.array([INF, 1.0, 2.0, NAN]), np.array([INF, 1.0, 2.5, NAN])
    found = judge(ours, theirs, 0.1)
    assert (found.verdict, found.index, found.error, found.fraction) == ("mismatch", (2,), 0.5, 5.0)
    assert "1 of 4" not in found.detail
    assert found.largest == INF
    assert judge(ours, theirs, 1.0).verdict == "not finite"


@pytest.mark.parametrize(("ours", "theirs", "verdict"), [
    (None, np.ones(2), "missing"), (np.ones(2), None, "missing"), (None, None, "missing"),
    (np.ones(0), np.ones(0), "missing"), (np.ones((2, 0, 3)), np.ones((2, 0, 3)), "missing"),
    (np.ones(2), np.ones(3), "shape"), (np.ones((1, 2)), np.ones(2), "shape"), (np.ones(0), np.ones(1), "shape"),
    (np.ones(2, np.int32), np.ones(2, np.float32), "dtype"), (np.ones(2, bool), np.ones(2), "dtype"),
    (np.ones(2, np.complex64), np.ones(2), "dtype"),
    (np.ones(2, np.int32), np.ones(2, np.int64), "equal"), (np.ones(2, np.float32), np.ones(2), "equal"),
    (np.ones(2, bfloat16), np.ones(2, np.float32), "equal"),
])  # fmt: skip
def test_what_is_missing_or_of_another_kind_is_not_equal(ours: Any, theirs: Any, verdict: str) -> None:
    found = judge(ours, theirs, INF)
    assert found.verdict == verdict
    assert (found.fraction == INF) is (verdict != "equal")


def test_whole_and_complex_numbers_are_measured_as_what_they_are() -> None:
    large = np.array([2**60])
    assert judge(large, large + 1).verdict == "mismatch"  # alike in float64
    assert (difference(np.array([3], np.uint8), np.array([250], np.uint8)) == 247).all()
    assert judge(np.array([1 + 2j]), np.array([1 + 5j]), 3.0).error == 3.0
    assert judge(np.array([1 + 2j]), np.array([1 + 5j]), 2.9).verdict == "mismatch"


def test_parts_of_what_is_allowed() -> None:
    cases = [(0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (NAN, 1.0), (1.0, NAN), (INF, INF)]
    assert [share_used(*case) for case in cases] == [0.0, INF, 0.5, INF, INF, INF]
    assert [within(1.0, 1.0), within(1.0, INF), within(NAN, INF), within(INF, INF), within(1.0, NAN)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    # No bound, or one that isn't a number, allows nothing but equality.
    assert judge([1.0, 2.0], [1.0, 2.5], [NAN, NAN]).fraction == INF
    assert judge([1.0], [2.0], [-1.0]).verdict == "mismatch"
    assert judge([1.0], [1.0], [NAN]).equal


def tensors(**arrays: Any) -> dict[str, NDArray]:
    return {name: np.asarray(value, np.float64) for name, value in arrays.items()}


RIGHT = {"first": [1.0, 2.0], "second": [3.0, 4.0], "third": [5.0]}


@pytest.mark.parametrize("judged", [judge_worst, judge_together])
@pytest.mark.parametrize(("name", "value", "verdict"), [
    ("first", [1.0, NAN], "mismatch"), ("second", [NAN, 4.0], "mismatch"), ("third", [INF], "mismatch"),
    ("second", [3.0, 4.1], "mismatch"), ("third", [[5.0]], "shape"), ("second", [], "shape"),
    ("third", None, "missing"),
])  # fmt: skip
def test_one_tensor_of_several_is_enough(judged: Callable, name: str, value: Any, verdict: str) -> None:
    right = tensors(**RIGHT)
    assert judged(right, right, 1e-3).equal
    wrong = tensors(**RIGHT | {name: [0.0] if value is None else value})
    if value is None:
        del wrong[name]
    found = judged(wrong, right, 1e-3)
    assert found.verdict == verdict
    assert found.name in (name, "") if judged is judge_together else found.name == name
    if value is None:  # a tensor too many is as bad
        found = judged(right, wrong, 1e-3)
        assert (found.verdict, found.name) == (verdict, name)
        assert name in found.detail


def test_no_tensors_are_not_equal_tensors() -> None:
    assert judge_worst({}, {}, 1.0).verdict == judge_together({}, {}, 1.0).verdict == "missing"


def test_something_beside_nothing_is_a_mismatch() -> None:
    zeros, some = tensors(a=[0.0, 0.0]), tensors(a=[0.0, 1e-30])
    for judged in (judge_worst, judge_together):
        assert judged(some, zeros, 1.0).verdict == "mismatch"
        assert judged(zeros, zeros, 1.0).equal


# What uses the judge.


def test_gradients_end_to_end() -> None:
    candidate = SimpleNamespace(name="m", dtype="float64", records={})

    def row(*pairs: tuple[str, Any, Any]) -> Row:
        named = [(name, np.asarray(a), np.asarray(b)) for name, a, b in pairs]
        return _normwise(candidate, "gradients", named)  # type: ignore[arg-type]

    fine = ("conv1/kernel", [1.0, 2.0], [1.0, 2.0])
    assert row(fine).equal
    assert row(fine, ("conv1/bias", [NAN], [NAN])).verdict == "not finite"
    assert row(fine, ("conv1/bias", [NAN], [1.0])).verdict == "mismatch"
    assert "conv1/bias" in row(fine, ("conv1/bias", [NAN], [1.0])).detail
    assert row(("conv1/bias", [1.0], [0.0])).verdict == "mismatch"  # relative to nothing
    assert row().verdict == "missing"
    for dtype in ("float64", "float32", "bfloat16"):
        candidate.dtype = dtype
        for wrong in ([0.0, 0.0], [-1.0, -2.0], [2.0, -1.0], [2.0, 4.0]):
            assert row(("conv1/kernel", wrong, [1.0, 2.0])).verdict == "mismatch"


def test_a_report_of_nothing_is_not_equal() -> None:
    empty = Report([])
    assert (empty.equal, empty.exit_code, empty.conclusion()) == (False, 1, ["nothing was compared"])
    assert empty.as_json()["equal"] is False


def test_a_clean_run_that_compares_nothing_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_runs.pairs, "build", lambda *_, **__: None)
    monkeypatch.setattr(clean_runs.pairs, "images", lambda *_: np.zeros((1, 3, 8, 8)))
    monkeypatch.setattr(clean_runs.layers, "compare_pair", lambda *_, **__: Report([]))
    (run,) = clean_runs.run(1).runs
    assert run.alarm == "nothing was compared"


class Run:
    """A trainer whose weights are told beforehand, for each step of each run."""

    def __init__(self, runs: list[list[list[float]]]) -> None:
        self.runs = iter(runs)

    def restart(self) -> None:
        self.steps, self.step = next(self.runs), 0

    def weights(self) -> dict[str, NDArray]:
        return {"w": np.array(self.steps[self.step - 1], np.float32)}

    def load(self, weights: dict[str, NDArray]) -> None:
        pass

    def gradients(self, *batch: Any) -> tuple[float, dict[str, NDArray]]:
        return 0.0, {}

    def update(self, gradients: dict[str, NDArray], rate: float) -> None:
        self.step += 1


def envelope_of(theirs: list[list[list[float]]], ours: list[list[list[float]]]) -> list[Row]:
    """Rows of runs: of each run the weights after each step."""

    def make() -> Any:
        return Run(theirs), Run(ours)

    steps = len(theirs[0])
    fed = Material(np.zeros(steps), np.zeros(steps), [{}] * steps, [0.1] * steps)
    return envelope.envelope_rows(make, fed, "m", "r", runs=len(theirs))


def runs(count: int, *, offset: float = 0.0) -> list[list[list[float]]]:
    return [[[1.0, 1.0 + 0.01 * i + offset], [2.0, 1.0 + 0.01 * i + offset]] for i in range(count)]


@pytest.mark.parametrize("broken", [1, 2, 5])
@pytest.mark.parametrize("value", [NAN, INF])
def test_runs_that_break_down_are_in_no_envelope(broken: int, value: float) -> None:
    fine = envelope_of(runs(5), runs(5, offset=0.001))
    assert [row.verdict for row in fine] == ["equal", "equal"]
    ours = runs(5, offset=0.001)
    for run in ours[:broken]:
        run[1] = [value, value]
    first, second = envelope_of(runs(5), ours)
    assert first.equal
    assert (second.verdict, second.fraction) == ("mismatch", INF)
    assert "run 1" in second.detail
    # The reference's own: an infinite envelope would hold everything.
    assert [row.verdict for row in envelope_of(ours, runs(5))] == ["equal", "mismatch"]
    assert [row.verdict for row in envelope_of(ours, ours)] == ["equal", "not finite"]


def test_both_frameworks_start_from_the_same_perturbed_weights() -> None:
    """Whatever the order in which a framework names its parameters."""
    started = []

    class Ordered(Run):
        def __init__(self, names: list[str]) -> None:
            super().__init__([[[0.0]]])
            self.names = names

        def weights(self) -> dict[str, NDArray]:
            return {name: np.linspace(0.1, 1, 20).astype(np.float32) for name in self.names}

        def load(self, weights: dict[str, NDArray]) -> None:
            started.append(weights)

    fed = Material(np.zeros(1), np.zeros(1), [{}], [0.1])
    for names in (["conv.weight", "conv.bias"], ["conv.bias", "conv.weight"]):
        envelope._history(Ordered(names), fed, [1], perturbation=2)  # type: ignore[arg-type]
    assert all((started[0][name] == started[1][name]).all() for name in started[0])


def test_optimizer_rows_name_the_tensor_that_is_not_finite() -> None:
    theirs = tensors(**{"conv1.weight": [1.0, 2.0], "conv2.weight": [1.0, 2.0], "fc.bias": [3.0]})
    for name in theirs:
        ours = theirs | tensors(**{name: np.full(theirs[name].shape, NAN)})
        row = trajectory._tree("m", "gradients", "step 1", ours, theirs, "float64", 0)
        assert (row.verdict, row.torch_name, row.fraction) == ("mismatch", name, INF)
        ours.pop(name)
        row = trajectory._tree("m", "gradients", "step 1", ours, theirs, "float64", 0)
        assert (row.verdict, row.torch_name) == ("missing", name)


def case(x: Any, torch_y: Any, flax_y: Any) -> Case:
    arrays = (np.asarray(a, np.float64) for a in (x, torch_y, flax_y))
    one, two, three = arrays
    return Case("", {}, one, {}, {}, two, three)


def test_no_cause_is_named_by_what_is_not_finite() -> None:
    x, y = np.ones((2, 3)), np.array([[1.0, 2.0, NAN], [3.0, 4.0, 5.0]])
    assert causes.explain(case(x, y, y)) == []
    # An infinite result would allow an infinite residual, which any finite one lies below.
    assert causes.explain(case(x, np.full((2, 3), INF), np.full((2, 3), 7.0))) == []
    assert causes.explain(case([1.0, 2.0], [3.0, 4.0], [6.0, 8.0]))[0].key == "scaled"
    assert not causes.explains(INF, 1.0, INF)
    assert not causes.explains(INF, NAN, 1.0)
    assert causes.explains(INF, 1.0, 1.0)
    bad = np.array([[NAN, -1.0]])
    assert chain_causes.explain([["relu", []]], [bad], bad, np.array([[0.0, 0.0]]), 1e-9) == []
    relu = ReLU(x=np.array([[1.0, -1.0]]))
    assert gradient_causes.explain(relu, np.array([[NAN, 1.0]]), bad, np.array([[0.0, 0.0]]), 1e-9) == []
    crops = np.zeros((1, 2, 2, 3), np.uint8)
    nothing = np.full((1, 2, 2, 3), NAN)
    measured: Any = SimpleNamespace(mean_image=np.zeros((2, 2, 3)), mean=np.zeros(3), std=np.ones(3))
    seen = data_causes.Seen(crops, None, complete_settings(image_size=2, normalize="unit"), measured)
    assert data_causes.of_input(seen, nothing, nothing, "float64") == []
    step = rules.Step(tensors(w=[1.0]), tensors(w=[1.0]), 0.1, tensors(w=[0.9]), tensors(w=[NAN]))
    rule = rules.Rule("outside", 0.9, {"w": 0.0}, {"w": 1.0})
    assert rules.explain(rule, [step], 1, 1e-13) == []


def test_a_layout_is_found_beside_what_is_not_finite(rng: np.random.Generator) -> None:
    reference = rng.normal(size=(2, 3, 3, 3))
    reference[0, 0, 0, 1] = NAN
    for moved in (True, False):
        layout = layouts.align(reference, layouts.channels_last(reference) if moved else reference, None)
        assert layout is not None
        assert layout.moved is moved


@pytest.mark.parametrize(("ours", "theirs"), [
    ({"logits": [1.0, NAN]}, {"logits": [1.0, 2.0]}), ({"logits": [1.0, NAN]}, {"logits": [1.0, NAN]}),
    ({"logits": [1.0, 2.0]}, {"logits": [1.0, INF]}), ({}, {"logits": [1.0, 2.0]}),
    ({"logits": [1.0, 2.0]}, {"logits": [1.0, 2.0], "fc.bias": [1.0]}),
    ({"logits": [1.0, 2.0], "fc.bias": [1.0]}, {"logits": [1.0, 2.0]}),
    ({"logits": []}, {"logits": []}),
])  # fmt: skip
def test_a_timed_form_without_a_finite_outcome_is_unequal(
    tmp_path: Path, ours: dict[str, list[float]], theirs: dict[str, list[float]]
) -> None:
    for name, arrays in (("ours", ours), ("theirs", theirs)):
        np.savez(tmp_path / name, **tensors(**arrays))  # type: ignore[arg-type]
    assert checks.compare(tmp_path / "ours.npz", tmp_path / "theirs.npz", "bfloat16")["equal"] is False


def test_a_training_form_without_updates_is_unequal(tmp_path: Path) -> None:
    np.savez(tmp_path / "a", logits=np.ones(3))
    assert checks.compare(tmp_path / "a.npz", tmp_path / "a.npz", "float32")["equal"] is True
    assert checks.compare(tmp_path / "a.npz", tmp_path / "a.npz", "float32", training=True)["equal"] is False


def test_speeds_that_are_not_finite_are_void(tmp_path: Path) -> None:
    result = Result(Workload("jax", "tuned", "cifar_18pct", 32, 8).as_json())
    workload = Workload("jax", "tuned", "cifar_18pct", 32, 8)
    facts = {"compile_seconds": 1.0, "platform": "cpu"}
    result.timings = {(workload.name, 1): Timing(workload, [INF, INF], facts, parity={"equal": True, "logits": INF})}
    (row,) = result.rows()
    assert row["void"]
    assert "VOID" in result.table()
    for ratio in (Interval(NAN, NAN, NAN), Interval(2.0, 1.5, INF), Interval(0.5, NAN, 0.6)):
        assert "nothing can be said" in statistics.verdict(ratio, "a", "b")

    chosen = Throughput(json=str(tmp_path / "t.json"))
    commands._write(chosen, result.as_json(), str)
    read = json.loads((tmp_path / "t.json").read_text(), parse_constant=pytest.fail)
    assert read["rows"][0]["parity"]["logits"] is None
