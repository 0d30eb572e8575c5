"""A measurement that must end in time: it does, and says what it left out."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parity.__main__ import main
from parity.speed import checks, commands, processes, throughput
from parity.speed.budget import LEAST_ROUNDS, Budget
from parity.speed.processes import OverBudget, flags, rivals
from parity.speed.result import Result
from parity.speed.workload import PLAIN_FORMS, Workload, best_forms


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


class Busy:
    """Stands for the processes of a slow machine: each takes so many seconds until it is ready, and for each step."""

    def __init__(self, clock: Clock, ready: dict[str, float], steps: dict[str, float]) -> None:
        self.clock, self.ready, self.steps = clock, ready, steps
        self.started: list[str] = []

    @contextlib.contextmanager
    def rivals(
        self, workloads: list[Workload], weights: Path, pythons: object, left: Callable[[], float]
    ) -> Iterator[list[Any]]:
        def rival(workload: Workload) -> Any:
            def spend(seconds: float) -> float:
                if seconds > left():
                    self.clock.now += left()
                    raise OverBudget(f"{workload.name} had not answered when the time was up")
                self.clock.now += seconds
                return seconds

            self.started.append(workload.name)
            spend(self.ready[workload.name])
            return SimpleNamespace(
                workload=workload,
                facts={"compile_seconds": self.ready[workload.name], "platform": "cpu"},
                run=lambda steps: spend(self.steps.get(workload.name, 0.5) * steps),
                check=lambda *_: spend(self.ready[workload.name]),
                ceilings=dict,
                peak_bytes=lambda: 0,
            )

        yield [rival(workload) for workload in workloads]


PLAIN = {form: 9.0 if form.endswith("eager") else 80.0 for form in PLAIN_FORMS}
READY = {
    "jax tuned": 20.0,
    "jax plain": 18.0,
    **{f"torch plain ({form})": seconds for form, seconds in PLAIN.items()},
    **{f"torch tuned (shifted-{form})": seconds + 10 for form, seconds in PLAIN.items()},
    **{f"torch tuned ({form})": seconds for form, seconds in PLAIN.items()},
}


COMPILED = [f"{norm}{form}" for norm in ("shifted-", "") for form in PLAIN_FORMS if form.endswith("compiled")]


def measured(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    frameworks: str = "jax,torch",
    styles: str = "plain,tuned",
    mode: str = "train",
    steps: dict[str, float] | None = None,
    check_layers: bool = True,
) -> tuple[Result, Busy]:
    clock = Clock()
    busy = Busy(clock, READY, steps or {})
    monkeypatch.setattr(throughput, "rivals", busy.rivals)
    monkeypatch.setattr(checks, "write_weights", lambda *_: None)
    monkeypatch.setattr(checks, "compare", lambda *_, **__: {"equal": True})
    # It takes all that it may.
    monkeypatch.setattr(checks, "layers", lambda *args: setattr(clock, "now", clock.now + min(args[-1], 600.0)))
    plan = throughput.Plan(4, 1, block_seconds=1.0, check_layers=check_layers, budget=Budget(seconds, clock))
    base = Workload("jax", "tuned", "cifar_18pct", 32, 8, mode=mode)
    return throughput.run(base, [1], frameworks.split(","), styles.split(","), plan), busy


def test_a_busy_machine_has_a_result_in_ninety_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    result, busy = measured(monkeypatch, 90.0)
    assert busy.started[:2] == ["jax tuned", "torch plain (nchw-eager)"]
    assert set(result.timings) == {("jax tuned", 1), ("torch plain (nchw-eager)", 1)}
    assert [ratio["style"] for ratio in result.ratios] == ["tuned over plain, nchw-eager"]
    assert all(len(timing.blocks) >= LEAST_ROUNDS for timing in result.timings.values())
    # 29 s until both are ready, a few steps of warming up and measuring.
    budget = result.budget or {}
    assert 29 < budget["workable_seconds"] < 60
    assert f"about {budget['workable_seconds']} s" in result.table()
    assert budget["used_seconds"] <= 90
    # So much is enough, as it said.
    assert measured(monkeypatch, budget["workable_seconds"])[0].ratios


@pytest.mark.parametrize(("frameworks", "styles"), [
    ("jax", "tuned"), ("jax", "plain,tuned"), ("torch", "plain"), ("jax,torch", "plain"), ("torch", "plain,tuned"),
])  # fmt: skip
def test_whatever_is_ready_soon_comes_first(monkeypatch: pytest.MonkeyPatch, frameworks: str, styles: str) -> None:
    result, busy = measured(monkeypatch, 60.0, frameworks, styles)
    assert result.timings
    assert busy.started[0] in ("jax tuned", "jax plain", "torch plain (nchw-eager)")


def test_without_a_result_it_says_why_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = measured(monkeypatch, 25.0)
    assert not result.timings
    table = result.table()
    assert "torch plain (nchw-eager) had not answered when the time was up" in table
    assert "nothing was timed: getting the first processes ready took all of the 25 s" in table
    assert "try --budget-seconds 60" in table
    more, _ = measured(monkeypatch, 60.0)
    assert more.timings
    assert "nothing was timed" not in more.table()
    # With all the time in the world nothing is hurried, and nothing said.
    whole, busy = measured(monkeypatch, math.inf)
    assert busy.started[0] == "torch plain (nchw-eager)"
    assert len(whole.ratios) == 3
    assert (whole.budget or {})["advice"] == ""


def test_a_compiler_that_takes_minutes_leaves_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's, which tries kernels: what needs none comes first, and its speed is found before time is up."""
    monkeypatch.setitem(READY, "torch tuned (shifted-channels_last-compiled)", 300.0)
    result, busy = measured(monkeypatch, 200.0, styles="tuned")
    assert busy.started[:2] == ["jax tuned", "torch tuned (shifted-channels_last-eager)"]
    assert result.ratios[0]["style"] == "tuned over tuned, shifted-channels_last-eager"
    assert list(result.trials["tuned"]) == ["shifted-nchw-eager", "shifted-channels_last-eager"]
    assert "had not answered when the time was up" in result.table()


def test_forms_are_tried_in_what_no_pair_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H100 JAX is ready after a minute; PyTorch's forms, ready in seconds, must not have to fit a pair's time."""
    compiled = {name: 25.0 for name in READY if name.endswith("compiled)")}
    monkeypatch.setattr("test_parity_speed_budget.READY", READY | compiled | {"jax tuned": 60.0})
    result, _ = measured(monkeypatch, 190.0, check_layers=False)
    assert list(result.trials["plain"]) == ["nchw-eager", "channels_last-eager", "channels_last-compiled"]
    assert list(result.trials["tuned"]) == ["shifted-nchw-eager", "shifted-channels_last-eager"]
    budget = result.budget or {}
    assert budget["used_seconds"] > 180  # 134 when they were as hard to begin as a pair
    assert "tuned PyTorch, shifted-channels_last-compiled: not tried, for lack of time" in budget["cut"]


def test_only_who_has_time_waits_for_tuned_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [form for form in best_forms("nchw-eager", "train") if form.endswith("autotuned")]
    monkeypatch.setattr(throughput, "listed_gpus", lambda: ["GPU 0: Made-up"])
    tuned = {f"torch tuned ({norm}channels_last-autotuned)": 100.0 for norm in ("shifted-", "")}
    monkeypatch.setattr("test_parity_speed_budget.READY", READY | tuned)
    tried = [measured(monkeypatch, seconds)[0].trials["tuned"] for seconds in (math.inf, 1000.0)]
    assert [sum(form.endswith("autotuned") for form in forms) for forms in tried] == [2, 0]


def test_what_is_kept_between_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workload = Workload("jax", "tuned", "cifar_18pct", 32, 8)
    assert flags(workload, tmp_path)["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    monkeypatch.setattr(processes, "listed_gpus", lambda: ["GPU 0: Made-up"])
    kept = flags(workload, tmp_path)
    assert "JAX_ENABLE_COMPILATION_CACHE" not in kept
    assert Path(kept["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path


FROZEN = {f"torch tuned ({form.replace('compiled', 'frozen')})": READY[f"torch tuned ({form})"] for form in COMPILED}


@pytest.mark.parametrize(
    ("best", "mode", "tried"),
    [
        ("shifted-channels_last-compiled", "train", 5),
        ("shifted-nchw-compiled", "train", 5),
        ("channels_last-eager", "train", 5),
        ("shifted-nchw-frozen", "infer", 7),
    ],
)
def test_ratios_are_against_the_fastest_of_all_forms(
    monkeypatch: pytest.MonkeyPatch, best: str, mode: str, tried: int
) -> None:
    monkeypatch.setattr("test_parity_speed_budget.READY", READY | FROZEN)
    faster = {f"torch tuned ({best})": 0.1, f"torch plain ({best})": 0.2}
    result, _ = measured(monkeypatch, math.inf, mode=mode, steps=faster)
    assert len(result.trials["tuned"]) == tried
    assert ("jax tuned", 1) in result.timings
    assert {name for name, _ in result.timings if "torch tuned" in name} == {f"torch tuned ({best})"}
    assert f"PyTorch's best form here, which tuned is: {best}, of {tried} that were tried" in result.table()
    assert result.as_json()["tuned_forms"][best] == 80.0


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
    parts = [
        "jax tuned against torch tuned (shifted-channels_last-eager), 1 device(s)",
        "comparison of the layers",
        "forms of tuned PyTorch",
        "jax tuned against torch tuned (shifted-channels_last-compiled), 1 device(s)",
        "A/A control",
        "time by layer",
    ]
    assert read["budget"]["cut"] == [f"{part}: not run, for lack of time" for part in parts]
    out = capfd.readouterr().out
    assert all(line in out for line in read["budget"]["cut"])
    assert "nothing was timed" in out
    assert "try --budget-seconds 60" in out


class Hurried(Budget):
    """Every round takes two seconds longer, which nobody waits for."""

    def another_round(self, *args: Any) -> bool:
        self._began -= 2.0
        return super().another_round(*args)


def test_the_command_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "Budget", Hurried)
    monkeypatch.setattr(throughput._Measuring, "_control", lambda *_: None)  # two more processes, for the same
    files = [tmp_path / "t.json", tmp_path / "t.html"]
    words = ["--frameworks=jax", "--rounds=1000000", "--budget-seconds=30", f"--json={files[0]}", f"--html={files[1]}"]
    began = time.monotonic()
    assert main(["throughput", *OPTIONS, *words]) == 0
    assert time.monotonic() - began < 40
    read = json.loads(files[0].read_text())
    (row,) = read["rows"]
    assert row["n"] == len(row["blocks"]) >= 2
    assert read["budget"]["used_seconds"] <= 30
    assert read["budget"]["cut"][0] == f"jax tuned, 1 device(s): {row['n']} of 1000000 rounds, for lack of time"
    page, out = files[1].read_text(), capfd.readouterr().out
    assert "Cut to end within 30 s" in page
    assert all(line in out and line in page for line in read["budget"]["cut"])
