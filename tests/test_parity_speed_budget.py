"""A measurement that must end in time: it does, and says what it left out."""

import json
import math
import time
from pathlib import Path

import pytest

from parity.__main__ import main
from parity.speed import checks
from parity.speed.budget import LEAST_ROUNDS, Budget
from parity.speed.processes import OverBudget, rivals
from parity.speed.workload import Workload


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rounds(budget: Budget, clock: Clock, ends: float, wanted: int, seconds: float) -> int:
    done = 0
    while budget.another_round("pair", done, wanted, seconds if done else 0.0, ends):
        clock.now += seconds
        done += 1
    return done


def test_parts_share_what_is_left() -> None:
    clock = Clock()
    budget = Budget(90.0, clock)
    budget.parts = 3
    assert budget.begin("first") == 30.0
    clock.now += 10.0  # 20 of its 30 seconds are left over
    assert budget.begin("second") == 50.0
    clock.now += 60.0
    assert budget.begin("third") == 90.0
    assert (budget.used(), budget.left(), budget.cut) == (70.0, 20.0, [])


def test_rounds_end_early_and_say_so() -> None:
    clock = Clock()
    budget = Budget(60.0, clock)
    assert budget.begin("pair") == 60.0
    assert rounds(budget, clock, 60.0, wanted=10, seconds=8.0) == 7
    assert budget.used() <= 60.0
    assert budget.cut == ["pair: 7 of 10 rounds, for lack of time"]
    # A pair that was begun has an interval, whatever it takes.
    assert rounds(budget, clock, budget.used(), wanted=10, seconds=8.0) == LEAST_ROUNDS
    assert len(budget.cut) == 2


def test_nothing_is_cut_without_need() -> None:
    clock = Clock()
    for budget in (Budget(None, clock), Budget(1000.0, clock)):
        ends = budget.begin("pair")
        assert ends is not None
        assert rounds(budget, clock, ends, wanted=10, seconds=8.0) == 10
        assert budget.cut == []
    assert Budget(None, clock).as_json()["seconds"] is None
    assert Budget(None, clock).left() == math.inf


def test_no_part_is_begun_that_could_not_be_set_up() -> None:
    clock = Clock()
    budget = Budget(60.0, clock)
    budget.parts = 2
    assert budget.begin("first") == 30.0
    budget.set_up(25.0)
    budget.set_up(45.0)
    clock.now += 40.0
    assert budget.begin("second") is None
    assert budget.cut == ["second: not run, for lack of time"]


def test_parts_weigh_differently() -> None:
    clock = Clock()
    budget = Budget(80.0, clock)
    budget.parts = 4.0
    assert budget.begin("heavy", 3.0) == 60.0
    clock.now += 60.0
    assert budget.begin("light") == 80.0


def test_a_process_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    weights = tmp_path / "w.npz"
    checks.write_weights(weights, "cifar_18pct", 32)
    workload = Workload("jax", "tuned", "cifar_18pct", 32, 8)
    began = time.monotonic()
    with pytest.raises(OverBudget, match="had not answered"), rivals([workload], weights, {}, lambda: 0.2):
        pass
    assert time.monotonic() - began < 5


OPTIONS = [
    "--model=cifar_18pct",
    "--batch-size=8",
    "--warmup=1",
    "--block-seconds=0.01",
    "--threads=1",
    "--style=tuned",
]


def test_the_command_without_time_measures_nothing_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.json"
    assert main(["throughput", *OPTIONS, "--budget-seconds=0.001", "--profile", f"--json={file}"]) == 1
    read = json.loads(file.read_text())
    assert (read["rows"], read["ratios"], read["aa_control"], read["profile"]) == ([], [], None, None)
    parts = ["comparison of the layers", "jax tuned against torch tuned, 1 device(s)", "A/A control", "time by layer"]
    assert read["budget"]["cut"] == [f"{part}: not run, for lack of time" for part in parts]
    out = capfd.readouterr().out
    assert all(line in out for line in read["budget"]["cut"])


def test_the_command_ends_in_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "t.json", tmp_path / "t.html"]
    words = ["--frameworks=jax", "--rounds=1000000", "--budget-seconds=40", f"--json={files[0]}", f"--html={files[1]}"]
    began = time.monotonic()
    assert main(["throughput", *OPTIONS, *words]) == 0
    assert time.monotonic() - began < 60
    read = json.loads(files[0].read_text())
    (row,) = read["rows"]
    assert row["n"] == len(row["blocks"]) >= 2
    assert read["budget"]["cut"][0] == f"jax tuned, 1 device(s): {row['n']} of 1000000 rounds, for lack of time"
    page, out = files[1].read_text(), capfd.readouterr().out
    assert "Cut to end within 40 s" in page
    assert all(line in out and line in page for line in read["budget"]["cut"])
