"""The training step as XLA compiles it for H100s that needn't be there: what it moves, computes and sends.

Needs XLA's GPU compiler (`make gpu-compiler`), and runs it in processes of its own: JAX runs here without it.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import facts
import pytest
from commands import run as run_here

ROOT = Path(__file__).parent.parent
CASES = list(product(("single_column", "two_column"), (1, 8)))
# docs/performance.md has what was read; a hundredth more is another version of XLA.
MOST = {("single_column", 1): 0.54, ("single_column", 8): 0.56, ("two_column", 1): 0.555, ("two_column", 8): 0.575}


def compare(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parity.speed.gpu_comparison", *map(str, words)]
    # One device is enough for a process that only compiles.
    variables = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def comparison(gpu_compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, int]], dict]:
    """What the command writes for a case, each compiled once."""
    folder = tmp_path_factory.mktemp("gpu")

    @functools.cache
    def compiled(case: tuple[str, int]) -> dict:
        model, devices = case
        path = folder / f"{model}-{devices}.json"
        done = compare(
            "--model", model, "--devices", devices, "--gpu", "h100", "--batch-size", 256, "--precision", "bfloat16",
            "--json", path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(path.read_text()) | {"printed": done.stdout}

    return compiled


# Each takes a quarter of a minute to compile: one of several devices and with groups shows all that a step has.
SOON = (("two_column", 8),)
MATRIX = pytest.mark.slow, pytest.mark.matrix


@pytest.fixture(
    params=[case if case in SOON else pytest.param(case, marks=MATRIX) for case in CASES],
    ids=[f"{model}-{devices}" for model, devices in CASES],
)
def case(request: pytest.FixtureRequest) -> tuple[str, int]:
    return request.param


@pytest.fixture
def found(comparison: Callable[[tuple[str, int]], dict], case: tuple[str, int]) -> dict:
    return comparison(case)


def test_at_most_so_much_of_the_obvious_forms_bytes(found: dict, case: tuple[str, int]) -> None:
    own, obvious = (sum(launch["nbytes"] for launch in found[form]["launches"]) for form in ("own", "obvious"))
    assert own <= MOST[case] * obvious
    assert found["ratio"] == own / obvious
    assert f"{own / obvious:.3f} of the obvious form's" in found["printed"]


def test_no_scatter(found: dict) -> None:
    assert found["own"]["scatters"] == []
    assert len(found["obvious"]["scatters"]) == 3  # `nn.max_pool` three times: they are seen where they are


def test_no_activation_is_copied(found: dict, case: tuple[str, int]) -> None:
    assert found["own"]["copies"] == []
    if case[0] == "single_column":
        assert found["obvious"]["copies"]  # its windows of two channels


def test_every_convolution_is_cudnns_on_nhwc_bfloat16(found: dict) -> None:
    convolutions = found["own"]["convolutions"]
    # Five forward, five for kernels, and four for maps: nobody asks for the images' gradient.
    assert len(convolutions) == 14
    for convolution in convolutions:
        assert convolution["target"].startswith("cudnn$conv"), convolution
        assert convolution["dtypes"] == ["bf16"] * 3, convolution
        assert convolution["layouts"] == ["last"] * 3, convolution


def test_gradients_are_summed_once_in_float32(found: dict, case: tuple[str, int]) -> None:
    model, devices = case
    messages = found["own"]["collectives"]
    if devices == 1:
        assert messages == []
        return
    assert {(message["kind"], message["dtype"]) for message in messages} == {("all-reduce", "f32")}
    # And four numbers: the loss, two counts of hits, and the examples.
    assert sum(message["nbytes"] for message in messages) == 4 * (facts.NETWORKS[model].parameters + 4)


@pytest.mark.slow
@pytest.mark.matrix
def test_each_device_does_the_same_whatever_their_number(comparison: Callable[[tuple[str, int]], dict]) -> None:
    for model in ("single_column", "two_column"):
        one, eight = (
            sum(launch["operations"] for launch in comparison((model, devices))["own"]["launches"])
            for devices in (1, 8)
        )
        assert one == eight > 0


def test_without_the_compiler_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_GPU_COMPILER", str(tmp_path))
    done = run_here("parity.speed.gpu_comparison", devices=None, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: XLA's GPU compiler is not installed")
    assert "make gpu-compiler" in done.stderr and done.stderr.count("\n") == 1
