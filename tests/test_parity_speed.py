"""The benchmark's machinery: what may be concluded, what is void, processes that really run. No timing is judged."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_io.errors import UserError
from parity.__main__ import main
from parity.speed import charts, checks, commands, page, statistics, torch_forms, torch_job
from parity.speed.processes import rivals
from parity.speed.result import Result, Timing
from parity.speed.statistics import Interval
from parity.speed.workload import Workload, arithmetic
from tests import facts
from torch_ref.lrn import LocalResponseNorm


def test_medians_and_ratios_of_pairs() -> None:
    assert statistics.median_interval([3.0]) == Interval(3.0, 3.0, 3.0)
    spread = statistics.median_interval([1.0, 2.0, 3.0, 4.0, 100.0])
    assert spread.median == 3.0
    assert 1.0 <= spread.low <= 3.0 <= spread.high <= 100.0
    # A drift that slows both rivals tenfold leaves their ratio alone.
    slow = np.geomspace(1, 0.1, 8)
    ratio = statistics.ratio_interval(2 * slow, slow)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2, 2, 2))


def share_of_medians_up_to(place: int, n: int) -> float:
    """Of all resamples of n values, n odd, the share whose median is at most the value of that place in their order.

    So it is where more than half of n draws are of the first `place` values: a binomial law.
    """
    return sum(math.comb(n, j) * place**j * (n - place) ** (n - j) for j in range((n + 1) // 2, n + 1)) / n**n


@pytest.mark.parametrize(("n", "low", "high"), [(19, 6, 14), (27, 9, 19)])
@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_hold_the_middle_95_percent_of_resampled_medians(n: int, low: int, high: int, seed: int) -> None:
    # Four standard deviations of 4000 resamples away from the next value.
    apart = 4 * math.sqrt(0.025 * 0.975 / statistics.RESAMPLES)
    for place, share in ((low, 0.025), (high, 0.975)):
        assert share_of_medians_up_to(place - 1, n) + apart < share < share_of_medians_up_to(place, n) - apart
    values = np.random.default_rng(seed).permutation(np.arange(1.0, n + 1) ** 2)
    half = float((n + 1) // 2)
    assert statistics.median_interval(values, seed) == Interval(half**2, float(low**2), float(high**2))
    paired = np.linspace(1, 5, n)
    ratio = statistics.ratio_interval(values * paired, paired, seed)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((low**2, half**2, high**2))
    # Measured apart, where one of the two doesn't vary, above and below.
    above, below = (
        statistics.apart_interval(values, [2.0] * 5, seed), statistics.apart_interval([2.0] * 5, values, seed),
    )  # fmt: skip
    assert (above.low, above.median, above.high) == pytest.approx((low**2 / 2, half**2 / 2, high**2 / 2))
    assert (below.low, below.median, below.high) == pytest.approx((2 / high**2, 2 / half**2, 2 / low**2))


def test_nobody_wins_inside_the_interval() -> None:
    assert "no difference" in statistics.verdict(Interval(1.1, 0.9, 1.3), "a", "b")
    assert statistics.verdict(Interval(2.0, 1.5, 2.5), "a", "b") == "a is 2.00 times as fast as b"
    assert statistics.verdict(Interval(0.5, 0.4, 0.6), "a", "b") == "b is 2.00 times as fast as a"


@pytest.mark.parametrize(
    ("most", "expected"),
    [(55, ["0", "20", "40"]), (1.0, ["0%", "20%", "40%", "60%", "80%", "100%"]), (9, ["0", "2", "4", "6", "8"])],
)
def test_axes_have_round_numbers(most: float, expected: list[str]) -> None:
    point = {"low": most, "median": most, "high": most}
    unit = "%" if "0%" in expected else ""
    found = charts.lines([charts.Line("jax", [(1, point), (2, point)], "#000")], unit=unit)
    words = re.findall(r'text-anchor="end"[^>]*>([^<]*)<', found)
    assert words == expected


def test_rivals_change_places() -> None:
    assert statistics.alternation(4) == [(0, 1), (1, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("model", ["single_column", "two_column", "cifar_18pct"])
def test_arithmetic_is_that_of_the_facts(model: str) -> None:
    network = facts.NETWORKS[model]
    assert arithmetic(model, network.image_size, "infer") == 2 * network.macs
    first = {"single_column": 96 * 55 * 55 * 363, "two_column": 96 * 55 * 55 * 363, "cifar_18pct": 32 * 32 * 32 * 75}
    assert arithmetic(model, network.image_size, "train") == 2 * (3 * network.macs - first[model])


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("divided", [True, False])
def test_other_forms_of_lrn_are_the_same_function(columns: int, size: int, divided: bool) -> None:
    norm = LocalResponseNorm(size, alpha=0.3, beta=0.75, k=2.0, divide_by_size=divided, columns=columns)
    x = torch.randn(2, 8, 3, 4)
    expected = norm(x.double())
    for form in (torch_forms.UsersNorm(norm), torch_forms.ShiftedNorm(norm)):
        assert torch.allclose(form(x).double(), expected, rtol=1e-5, atol=1e-6)


def timing(
    framework: str, parity: dict[str, Any] | None, speeds: list[float], devices: int = 1, platform: str = "cpu"
) -> tuple[tuple[str, int], Timing]:
    workload = Workload(framework, "tuned", "cifar_18pct", 32, 8, devices=devices)
    said = {"compile_seconds": 1.0, "platform": platform, "bytes_a_step": 8e6 if framework == "jax" else None}
    ceilings = {"flops": 1e12, "bytes_per_second": 1e9}
    return (workload.name, devices), Timing(workload, speeds, said, ceilings, parity=parity)


def outcome(folder: Path, name: str, **arrays: list[float]) -> Path:
    np.savez(folder / name, **{key: np.array(value) for key, value in arrays.items()})  # type: ignore[arg-type]
    return folder / f"{name}.npz"


def test_what_differs_from_the_reference_is_unequal(tmp_path: Path) -> None:
    right = outcome(tmp_path, "right", logits=[1.0, 2.0], **{"conv1.bias": [0.0, 1.0], "fc10.bias": [3.0, 4.0]})
    for precision in ("float32", "tf32", "bfloat16"):
        assert checks.compare(right, right, precision)["equal"] is True
    wrong = outcome(tmp_path, "logits", logits=[1.0, 2.1], **{"conv1.bias": [0.0, 1.0], "fc10.bias": [3.0, 4.0]})
    found = checks.compare(wrong, right, "float32")
    assert found["equal"] is False
    assert found["logits"] == pytest.approx(0.1 / 5**0.5)
    # 4.5% is a bug in float32 and rounding in bfloat16.
    assert checks.compare(wrong, right, "bfloat16")["equal"] is True
    # One parameter's gradient has the wrong sign: its own distance counts, not its share of all.
    turned = outcome(tmp_path, "turned", logits=[1.0, 2.0], **{"conv1.bias": [0.0, -1.0], "fc10.bias": [3.0, 4.0]})
    for precision in ("float32", "tf32", "bfloat16"):
        found = checks.compare(turned, right, precision)
        assert (found["equal"], found["update"], found["update_of"]) == (False, 2.0, "conv1.bias")
    for values in ([math.nan, 2.0], [1.0, 2.0, 3.0]):
        broken = outcome(tmp_path, "broken", logits=values, **{"conv1.bias": [0.0, 1.0], "fc10.bias": [3.0, 4.0]})
        assert checks.compare(broken, right, "bfloat16")["equal"] is False
    # Not a number in the last parameter is not lost beside the others' distances.
    lost = outcome(tmp_path, "lost", logits=[1.0, 2.0], **{"conv1.bias": [0.0, 1.0], "fc10.bias": [math.nan, 4.0]})
    assert checks.compare(lost, right, "bfloat16")["update"] == math.inf
    logits_alone = outcome(tmp_path, "infer", logits=[1.0, 2.0])
    assert checks.compare(logits_alone, logits_alone, "float32")["update"] is None


class Twice(torch.nn.Module):
    """Stands for a compiler with a bug."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.module(x)


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_what_is_checked_is_the_form_that_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.delenv("RANK", raising=False)
    weights, ours, reference = (tmp_path / f"{name}.npz" for name in ("weights", "ours", "reference"))
    checks.write_weights(weights, "cifar_18pct", 32)
    workload = Workload("torch", "plain", "cifar_18pct", 32, 2, mode=mode, form="nchw-compiled")
    for wrong in (True, False):
        monkeypatch.setattr(torch_forms, "compiled", lambda x, *_, wrong=wrong: Twice(x) if wrong else x)
        job = torch_job.Job(workload, weights)
        job.run(2)
        job.check(str(ours), str(reference))
        # Without the bug they are equal: the weights are the first ones, not those that the timing has left behind.
        assert checks.compare(ours, reference, "float32")["equal"] is not wrong
        with np.load(ours) as found, np.load(reference) as expected:
            factor = 2 if wrong else 1
            np.testing.assert_allclose(found["logits"], factor * expected["logits"], rtol=1e-4, atol=1e-5)
            assert set(found.files) == ({"logits"} if mode == "infer" else {"logits", *job.weights})


def test_what_is_checked_drops_nothing() -> None:
    with torch.device("meta"):
        kinds = [
            {type(child) for child in torch_forms.network("single_column", 10, 67, "nchw-eager", dropout).children()}
            for dropout in (True, False)
        ]
    assert kinds[0] - kinds[1] == {torch.nn.Dropout}


def test_a_row_that_computes_something_else_is_void(tmp_path: Path) -> None:
    settings = Workload("jax", "tuned", "cifar_18pct", 32, 8).as_json()
    for equal, void in ((True, False), (False, True)):
        result = Result(settings)
        result.timings = dict([
            timing("jax", {"equal": equal}, [10.0, 12.0, 11.0]), timing("torch", {"equal": True}, [5.0, 5.0, 5.0]),
        ])  # fmt: skip
        rows = {row["framework"]: row for row in result.as_json()["rows"]}
        assert rows["jax"]["void"] is void
        assert not rows["torch"]["void"]
        assert ("VOID" in result.table()) is void
        page.write(result.as_json(), tmp_path / "t.html")
        assert ("VOID" in (tmp_path / "t.html").read_text()) is void
    # A failed comparison of the layers voids every row.
    result.timings["jax tuned", 1].parity = {"equal": True}
    assert [row["void"] for row in result.rows()] == [False, False]
    result.layers = {"equal": False}
    assert [row["void"] for row in result.rows()] == [True, True]
    assert rows["jax"]["ceiling_fraction"] == pytest.approx(11.0 * arithmetic("cifar_18pct", 32, "train") / 1e12)
    # 8 MB a step of 8 images at 11 images/s, of 1 GB/s.
    assert rows["jax"]["bandwidth_fraction"] == pytest.approx(0.011)
    assert rows["torch"]["bandwidth_fraction"] is None
    assert rows["jax"]["scaling_efficiency"] is None


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_efficiency_and_ceilings_of_several_devices(tmp_path: Path, platform: str) -> None:
    result = Result(Workload("jax", "tuned", "cifar_18pct", 32, 8).as_json())
    speeds = {1: [10.0, 10.0, 10.0], 2: [15.0, 16.0, 17.0], 4: [20.0, 20.0, 20.0]}
    result.timings = dict(timing("jax", None, speeds[count], count, platform) for count in (1, 2, 4))
    one, two, four = result.rows()
    assert [row["scaling_efficiency"]["median"] for row in (one, two, four)] == [1.0, 0.8, 0.5]
    assert 0.75 <= two["scaling_efficiency"]["low"] <= 0.8 <= two["scaling_efficiency"]["high"] <= 0.85
    # A ceiling is measured on one GPU, and on all cores of a CPU, which its devices share.
    more = 4 if platform == "gpu" else 1
    for share in ("ceiling_fraction", "bandwidth_fraction"):
        assert four[share] == pytest.approx(2 * one[share] / more)
    page.write(result.as_json(), tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text()
    assert "Scaling efficiency by devices" in text
    assert ("share the same cores" in text) is (platform == "cpu")
    assert text.count("<svg") == 3


def test_what_cannot_be_shared_or_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="can't be shared evenly by 3"):
        Workload("jax", "tuned", "cifar_18pct", 32, 8, devices=3)
    assert commands.device_counts("2,1,2") == [1, 2]
    monkeypatch.setattr(commands, "listed_gpus", lambda: ["GPU"] * 6)
    assert commands.device_counts("all") == [1, 2, 4, 6]
    assert commands.device_counts("1,all") == [1, 6]
    with pytest.raises(UserError, match="not all or numbers"):
        commands.device_counts("two")
    assert main_code(["throughput", "--style", "fast"]) == 2


def main_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def test_the_command_measures_and_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "t.json", tmp_path / "t.html"]
    options = [
        "--model=cifar_18pct",
        "--batch-size=8",
        "--rounds=2",
        "--warmup=1",
        "--block-seconds=0.01",
        "--threads=1",
    ]
    outputs = [f"--json={files[0]}", f"--html={files[1]}", f"--trace={tmp_path / 'trace'}"]
    assert main(["throughput", *options, *outputs, "--frameworks=jax", "--style=tuned"]) == 0
    read = json.loads(files[0].read_text())
    (row,) = read["rows"]
    keys = {"framework", "style", "devices", "batch_size", "precision", "mode", "images_per_second", "compile_seconds"}
    assert keys | {"peak_bytes", "ceiling_fraction", "parity"} <= set(row)
    assert row["images_per_second"]["median"] > 0
    assert row["compile_seconds"] > 0
    assert 0 < row["ceiling_fraction"] < 1
    assert row["peak_bytes"] > 1e8
    assert row["parity"]["equal"] is None  # nothing to compare it with
    assert row["bytes_a_step"] > 4 * 4 * facts.NETWORKS["cifar_18pct"].parameters  # weights, velocities: read, written
    assert 0 < row["bandwidth_fraction"] < 10
    assert (read["budget"]["seconds"], read["budget"]["cut"], read["budget"]["advice"]) == (None, [], "")
    assert read["aa_control"]["low"] <= read["aa_control"]["median"] <= read["aa_control"]["high"]
    assert "<svg" in files[1].read_text()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert "A/A control" in capfd.readouterr().out


def test_a_process_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    weights = tmp_path / "w.npz"
    checks.write_weights(weights, "cifar_13pct", 24)
    plain = Workload("jax", "plain", "cifar_13pct", 24, 8, threads=1)
    with pytest.raises(UserError, match="has no plain form"), rivals([plain], weights, {"jax": sys.executable}):
        pass
    with pytest.raises(UserError, match="can't be run"), rivals([plain], weights, {"jax": "/no/such/python"}):
        pass
