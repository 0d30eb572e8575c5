"""Real processes on this machine: they train as one, stop together, and fail together."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compiling
import numpy as np
import psutil
import pytest
from commands import run as run_here

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import batches
from alexnet_io.data.sources import open_source
from alexnet_io.errors import UserError
from alexnet_io.run.metrics import read_metrics
from jax_alexnet.files import checkpoint
from jax_alexnet.parallel import distributed
from jax_alexnet.parallel.layout import mesh_share

pytestmark = pytest.mark.usefixtures("optimized_steps")

ROOT = Path(__file__).resolve().parent.parent
# 96 images in batches of 40: of the last, the second process has filled-up places only; 41 test images.
UNEVEN = (
    "--model", "cifar_18pct", "--recipe", "blog", "--data", "synthetic:classes=4,train=96,test=41", "--batch-size",
    "40", "--learning-rate", "0.01", "--optimizer", "sgd", "--momentum", "0.9", "--precision", "float64",
    "--image-size", "16", "--stored-size", "20", "--crop", "--flip", "--color-noise", "--log-every", "1",
    "--warmup-steps", "1", "--label-smoothing", "0.1", "--clip-norm", "1", "--ema", "0.9", "--accumulate", "2",
)  # fmt: skip
# One CPU device each, whatever the tests' own process has; and a proxy that isn't there.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": " ".join(["--xla_llvm_disable_expensive_passes=true", *compiling.flags(compiling.LOOPS)]),
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "0",
    "PYTHONUNBUFFERED": "1",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}


def command(processes: int, *words: object) -> list[str]:
    start = ["jax_alexnet.launch", "--processes", str(processes), "--"] if processes > 1 else ["jax_alexnet.train"]
    return [sys.executable, "-m", *start, *map(str, words)]


def run(processes: int, *words: object) -> str:
    """What training in so many processes says; in one, here."""
    if processes == 1:
        return run_here("train", *words, devices=1).stdout
    done = subprocess.run(
        command(processes, *words), capture_output=True, text=True, timeout=400, check=False, cwd=ROOT, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def state(directory: Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's arrays by name."""
    path = checkpoint.newest(directory / "checkpoints")
    assert path is not None
    manifest = json.loads((path.path / "manifest.json").read_text())
    names = list(manifest["leaves"])
    from jax_alexnet.files import checkpoint_arrays
    from jax_alexnet.files import manifest as manifests

    return checkpoint_arrays.read_arrays(path.path, manifests.read(path.path), names)


def assert_same_training(one: Path, other: Path) -> None:
    expected, found = state(one), state(other)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert np.abs(array - found[name]).max() <= 1e-12, name
    rows = list(zip(read_metrics(one), read_metrics(other), strict=True))
    assert [(a.step, a.split) for a, _ in rows] == [(b.step, b.split) for _, b in rows]
    for a, b in rows:
        # Accuracy counts each example once, so that it is the same to the last digit.
        assert (a.top1, a.top5) == (b.top1, b.top5)
        assert a.loss == pytest.approx(b.loss, rel=1e-12)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes longer than the runs in this process, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet_io.run.loop.pictures.draw", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "run"
    run(1, *UNEVEN, "--epochs", 2, "--output", output)
    return output


def test_two_processes_train_as_one_and_one_goes_on_from_two(alone: Path, tmp_path: Path) -> None:
    """The optimizer's state divided between processes, then whole in one: only the first process writes and speaks."""
    output = tmp_path / "run"
    said = run(2, *UNEVEN, "--epochs", 2, "--steps", 3, "--parallel", "zero", "--output", output)
    assert said.count("reached ") == 1
    assert "in 2 processes" in said
    run(1, "--resume", "--output", output, "--steps", 6)
    assert_same_training(alone, output)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["data", "zero"])
def test_four_processes_train_as_one_and_two_go_on(alone: Path, tmp_path: Path, scheme: str) -> None:
    output = tmp_path / "run"
    run(4, *UNEVEN, "--epochs", 2, "--steps", 4, "--parallel", scheme, "--output", output)
    run(2, "--resume", "--output", output, "--steps", 6)
    assert_same_training(alone, output)


@pytest.mark.slow
def test_columns_in_two_processes_and_hybrid_in_four(tmp_path: Path) -> None:
    """Each process a column; both load the whole batch. Then four processes go on with the other scheme."""
    small = (
        "--model", "two_column", "--data", "synthetic:classes=4,train=16,test=9", "--batch-size", "8",
        "--precision", "float64", "--image-size", "36", "--stored-size", "40", "--log-every", "1", "--epochs", "2",
        "--normalize", "half", "--no-color-noise", "--clip-norm", "1", "--ema", "0.9",
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    run(1, *small, "--output", one)
    run(2, *small, "--parallel", "columns", "--steps", 2, "--output", two)
    run(4, "--resume", "--parallel", "hybrid", "--output", two, "--steps", 4)
    assert_same_training(one, two)


@pytest.mark.parametrize(
    ("processes", "axes", "expected"),
    [
        (2, {"data": 4}, [(0, 2), (1, 2)]),
        (4, {"shard": 4}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        (2, {"data": 2, "column": 2}, [(0, 2), (1, 2)]),  # a pair of columns in each process
        (4, {"data": 2, "column": 2}, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # a column in each: both see the same images
        (2, {"column": 2}, [(0, 1), (0, 1)]),
        (2, {"data": 2, "part": 4}, [(0, 2), (1, 2)]),
    ],
)
def test_each_process_loads_the_share_that_its_devices_need(processes: int, axes: dict, expected: list) -> None:
    """Shares are disjoint and cover the batch, but for columns of the same images."""
    count = int(np.prod(list(axes.values())))
    devices = np.array([SimpleNamespace(process_index=i * processes // count) for i in range(count)])
    mesh: Any = SimpleNamespace(devices=devices.reshape(*axes.values()), axis_names=tuple(axes))
    assert [mesh_share(mesh, process) for process in range(processes)] == expected


@pytest.mark.parametrize("processes", [2, 4])
def test_samples_are_disjoint_and_cover_the_set(processes: int) -> None:
    """Two epochs' worth of ids, the short last batch included."""
    split = open_source("synthetic:classes=4,train=97,test=8", image_size=8).train
    for epoch in range(2):
        seen = [
            np.concatenate([batch.ids[batch.weights > 0] for batch in batches(
                split, batch_size=20, seed=1, epoch=epoch, shuffle=True, process_index=i, process_count=processes)])
            for i in range(processes)
        ]  # fmt: skip
        assert sorted(np.concatenate(seen).tolist()) == list(range(97))


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run of two processes, or `param`, that would take minutes, once its first checkpoint is there."""
    output = tmp_path / "run"
    words = [*UNEVEN, "--epochs", 5000, "--checkpoint-seconds", 1, "--evaluate-every", 1000, "--output", output]
    process = subprocess.Popen(
        command(getattr(request, "param", 2), *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while not checkpoint.checkpoints(output / "checkpoints"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield process, output
    finally:
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def workers(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found]


def coordinators_addresses(pids: list[int]) -> set[str]:
    """At which of this machine's addresses one of the processes listens for the others."""
    words = psutil.Process(pids[0]).cmdline()
    port = int(words[words.index("--coordinator") + 1].rpartition(":")[2])
    sockets = [socket for pid in pids for socket in psutil.Process(pid).net_connections("tcp")]
    listening = [socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN]
    return {address.ip.removeprefix("::ffff:") for address in listening if address.port == port}


@pytest.mark.parametrize("running", [2, pytest.param(4, marks=pytest.mark.slow)], indirect=True)
def test_a_process_that_dies_ends_the_others(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, output = running
    started = workers(process.pid)
    assert len(started) in (2, 4)
    assert coordinators_addresses(started) == {"127.0.0.1"}
    os.kill(random.choice(started), signal.SIGKILL)
    began = time.monotonic()
    _, said = process.communicate(timeout=70)
    assert time.monotonic() - began < 60
    assert process.returncode not in (0, None)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert "another process of this run has ended" in said or "another task died" in said, said[-2000:]
    last = checkpoint.newest(output / "checkpoints")
    assert last is not None
    # What was saved is whole: one process goes on from there.
    said = run(1, "--resume", "--output", output, "--steps", last.step + 2)
    assert f"after {last.step + 2} steps" in said


def test_a_signal_stops_all_after_the_same_step(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, output = running
    os.kill(workers(process.pid)[1], signal.SIGTERM)  # not the first, which saves
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 143, errors[-2000:]
    assert "stopped by signal 15 after step" in said
    last = checkpoint.newest(output / "checkpoints")
    assert last is not None
    assert f"after step {last.step};" in said


@pytest.mark.slow
def test_a_process_that_never_comes_is_waited_for_a_minute(tmp_path: Path) -> None:
    words = [*UNEVEN, "--coordinator", "127.0.0.1:29417", "--num-processes", 2, "--process-id", 0]
    began = time.monotonic()
    done = subprocess.run(command(1, *words, "--output", tmp_path / "run"), capture_output=True, text=True, timeout=200,
                          check=False, cwd=ROOT, env=ENVIRONMENT)  # fmt: skip
    assert done.returncode == 2
    assert time.monotonic() - began < 100
    assert "did not come together" in done.stderr
    assert "Check failure" not in done.stderr, "JAX's coordination service aborted the process first"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"num_processes": 2}, "--coordinator HOST:PORT and --process-id is missing"),
        ({"coordinator": "here:1", "num_processes": 2}, "--process-id is missing"),
        ({"coordinator": "here:1", "num_processes": 2, "process_id": 2}, "--process-id 2 does not exist"),
        ({"coordinator": "here", "num_processes": 2, "process_id": 1}, "'here' is not HOST:PORT"),
    ],
)
def test_flags_that_do_not_go_together(flags: dict, says: str) -> None:
    with pytest.raises(UserError, match="--") as refused:
        distributed._wanted(TrainSettings(**flags))
    assert says in str(refused.value)
