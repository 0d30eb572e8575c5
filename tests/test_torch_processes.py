"""The reference under torchrun: two real processes train as one, stop together, and fail together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from alexnet_io.metrics import read_metrics
from torch_ref import checkpoint

ROOT = Path(__file__).resolve().parent.parent
DATA = ("--data", "synthetic:classes=4,train=96,test=41")
# 96 images in batches of 40: of the last, the second process has filled-up places only.
UNEVEN = (
    "--model", "cifar_18pct", "--recipe", "blog", *DATA, "--batch-size", "40", "--learning-rate", "0.01",
    "--optimizer", "sgd", "--momentum", "0.9", "--precision", "float64", "--stored-size", "36",
    "--crop", "--flip", "--color-noise",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def command(processes: int, *words: object) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start = torchrun if processes > 1 else []
    return [sys.executable, *start, "-m", "torch_ref.train", *map(str, words)]


def run(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *words), capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=ENVIRONMENT
    )


def weights(directory: Path) -> dict[str, torch.Tensor]:
    content = checkpoint.load_newest(directory / "checkpoints", strict=True)
    assert content is not None
    return content["state_dict"]


def test_two_processes_train_as_one_and_one_goes_on_from_two(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    done = run(1, *UNEVEN, "--epochs", 2, "--output", one)
    assert done.returncode == 0, done.stderr
    done = run(2, *UNEVEN, "--epochs", 2, "--steps", 3, "--output", two)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reached ") == 1  # only the first process speaks
    done = run(1, "--resume", "--output", two, "--steps", 6)
    assert done.returncode == 0, done.stderr
    expected, found = weights(one), weights(two)
    for name, weight in expected.items():
        assert weight.dtype == torch.float64
        assert float((weight - found[name]).abs().max()) <= 1e-12, name
    rows = list(zip(read_metrics(one), read_metrics(two), strict=True))
    assert [a.step for a, _ in rows] == [b.step for _, b in rows]
    for a, b in rows:
        assert (a.loss, a.top1, a.top5) == pytest.approx((b.loss, b.top1, b.top5), rel=1e-12)


def test_bad_usage_is_said_once(tmp_path: Path) -> None:
    done = run(2, *UNEVEN, "--batch-size", "41", "--output", tmp_path / "run")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert "--batch-size 41 can't be shared evenly by 2 processes" in said[0]
    assert "42" in said[0]
    assert not (tmp_path / "run").exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes that would take minutes, once its first steps are done."""
    words = [*UNEVEN, "--epochs", 2000, "--checkpoint-seconds", "2", "--output", tmp_path / "run"]
    process = subprocess.Popen(
        command(2, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.saved(tmp_path / "run" / "checkpoints"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def test_a_process_that_dies_ends_the_others(running: subprocess.Popen[str]) -> None:
    first, second = workers(running.pid)[:2]
    os.kill(second, signal.SIGKILL)
    began = time.monotonic()
    _, said = running.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert running.returncode != 0
    assert not Path(f"/proc/{first}").exists()
    assert "SIGKILL" in said or "exitcode" in said, said


def test_a_signal_saves_and_the_run_goes_on(running: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(running.pid, signal.SIGTERM)  # torchrun passes it on to its processes
    running.communicate(timeout=60)
    saved = checkpoint.load_newest(tmp_path / "run" / "checkpoints", strict=True)
    assert saved is not None
    step = saved["step"]
    done = run(2, "--resume", "--output", tmp_path / "run", "--steps", step + 1)
    assert done.returncode == 0, done.stderr
    assert f"resumed after step {step}" in done.stdout
    again = checkpoint.load_newest(tmp_path / "run" / "checkpoints", strict=True)
    assert again is not None
    assert again["step"] == step + 1
