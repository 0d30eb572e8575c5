"""Who started a process as one of several, and what its environment puts between them; nothing is started here."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from jax_alexnet import launch, launchers
from jax_alexnet.parallel import distributed

NAMES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "PMI_SIZE",
    "PMI_RANK",
    *(name for name in os.environ if name.startswith(("SLURM_", "OMPI_")) or name.lower().endswith("_proxy")),
)
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NODELIST": "n[01-02,9]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def put(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in SRUN.items() if key != name}


@pytest.mark.parametrize(
    ("environment", "processes", "host"),
    [
        (SRUN, 4, "n01"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "4"}, 4, "n01"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu3,gpu4"}, 2, "gpu3"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1,10.1.0.1:3"}, 2, "10.0.0.1"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp6://[fe80::b]:4"}, 2, "fe80::b"),
    ],
)
def test_several_processes(environment: dict, processes: int, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, environment)
    found = launchers.find_launcher(os.environ)
    assert found is not None
    assert (found.processes, found.host) == (processes, host)
    wanted = distributed._wanted(TrainSettings())
    assert wanted is not None
    # What JAX would take from SLURM_NTASKS is right, or is said.
    assert int(wanted.get("num_processes", environment.get("SLURM_NTASKS", processes))) == processes
    assert distributed._wanted(TrainSettings(num_processes=1)) is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script, or a shell by salloc
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},  # a shell as a step of its own, in a job of four tasks
        without("SLURM_PROCID"),
        without("SLURM_LOCALID"),
        {**SRUN, "SLURM_NTASKS": "1"},
        {**SRUN, "SLURM_NTASKS": "4(x2)"},
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "1"},
    ],
)
def test_one_process(environment: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, environment)
    assert distributed._wanted(TrainSettings()) is None


@pytest.mark.parametrize(("size", "rank"), [("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")])
def test_an_mpi_without_an_address_is_told_what_to_give(size: str, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(size, "3")
    with pytest.raises(UserError) as refused:
        distributed._wanted(TrainSettings())
    assert all(word in str(refused.value) for word in (f"{size}=3", f"${rank}", "--coordinator", "--num-processes 1"))
    assert distributed._wanted(TrainSettings(num_processes=1)) is None


# --- Coming together


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What JAX is asked for, and the environment it is asked in."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **words: seen.update(words, environment={**os.environ}))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    return seen


@pytest.mark.parametrize(
    ("coordinator", "bound"),
    [("127.0.0.1:29400", True), ("localhost:29400", True), ("[::1]:29400", True), ("node1:29400", False)],
)
def test_the_coordinator_is_reached_without_a_proxy(
    coordinator: str, bound: bool, asked: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one of this machine's own addresses is all that it listens at."""
    proxies = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "other.example"}
    put(monkeypatch, proxies)
    wanted = distributed._wanted(TrainSettings(coordinator=coordinator, num_processes=2, process_id=0))
    assert wanted is not None
    distributed._connect(wanted, None)
    assert not any("proxy" in name.lower() for name in asked["environment"])
    assert {name: os.environ[name] for name in proxies} == proxies  # for what is fetched from elsewhere
    assert asked.get("coordinator_bind_address") == (coordinator if bound else None)


def test_who_is_waited_for_is_said(asked: dict, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, {**SRUN, "SLURM_STEP_NUM_TASKS": "3"})
    distributed._connect({"num_processes": 3}, launchers.find_launcher(os.environ))
    said = capsys.readouterr().err
    assert all(word in said for word in ("SLURM", "SLURM_STEP_NUM_TASKS=3", "--num-processes 1")), said
    assert asked["num_processes"] == 3


class _LeftError(Exception):
    pass


def _leave(code: int) -> None:
    raise _LeftError(code)


def _fail(**_: Any) -> None:
    raise RuntimeError("DEADLINE_EXCEEDED\nmore")


def test_what_kept_the_processes_apart_is_named(
    asked: dict, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.distributed, "initialize", _fail)
    monkeypatch.setattr(os, "_exit", _leave)
    put(monkeypatch, {**SRUN, "https_proxy": "http://secret@proxy:9", "HTTP_PROXY": "http://proxy:9"})
    with pytest.raises(_LeftError):
        distributed._connect({}, launchers.find_launcher(os.environ))
    said = capsys.readouterr().err.splitlines()[-1]
    named = (
        "https_proxy",
        "HTTP_PROXY",
        "SLURM",
        "SLURM_NTASKS=4",
        "--num-processes 1",
        "4 expected at n01",
        "DEADLINE",
    )
    assert all(word in said for word in named), said
    assert "secret" not in said
    monkeypatch.delenv("https_proxy")
    monkeypatch.delenv("HTTP_PROXY")
    with pytest.raises(_LeftError):
        distributed._connect({"coordinator_address": "node1:1", "num_processes": 2}, None)
    said = capsys.readouterr().err
    assert "2 expected at node1:1" in said
    assert "prox" not in said


def test_no_proxy_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"no_proxy": "127.0.0.1"}
    launchers.spare_proxies(environment, "127.0.0.1")
    assert environment == {"no_proxy": "127.0.0.1"}
    environment = {"grpc_proxy": "http://proxy:9", "no_proxy": "a.example,b.example", "no_grpc_proxy": "c.example"}
    launchers.spare_proxies(environment, "127.0.0.1")
    assert environment["no_proxy"] == "a.example,b.example,127.0.0.1"
    assert environment["NO_PROXY"] == "127.0.0.1"
    assert environment["no_grpc_proxy"] == "c.example,127.0.0.1"


# --- Processes on one machine


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Environments of the processes that would be started."""
    seen: list[dict[str, str]] = []

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        seen.append(env)
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=start))
    return seen


def nvidia_smi(gpus: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with so many GPUs."""
    listed = "".join(f"GPU {i}: NVIDIA Made-up (UUID: GPU-{i})\n  MIG 1g.5gb\n" for i in range(gpus))
    command = folder / "nvidia-smi"
    command.write_text(f"#!{sys.executable}\nprint({listed!r}, end='')\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("gpus", "environment", "processes", "expected"),
    [
        (2, {}, 2, ["0", "1"]),
        (4, {}, 2, ["0,1", "2,3"]),
        (4, {"CUDA_VISIBLE_DEVICES": "3,1"}, 2, ["3", "1"]),
        (4, {"CUDA_VISIBLE_DEVICES": "GPU-2, GPU-0,GPU-1,GPU-3"}, 2, ["GPU-2,GPU-0", "GPU-1,GPU-3"]),
        (4, {"CUDA_VISIBLE_DEVICES": "2,1,-1,0"}, 2, ["2", "1"]),
        (4, {"CUDA_VISIBLE_DEVICES": ""}, 3, ["", "", ""]),
        (4, {"CUDA_VISIBLE_DEVICES": "-1"}, 2, ["-1", "-1"]),
        (4, {"JAX_PLATFORMS": "cpu"}, 3, [None, None, None]),
        (4, {}, 1, [None]),
        (0, {}, 2, [None, None]),
    ],
)
def test_gpus_are_divided(
    gpus: int,
    environment: dict,
    processes: int,
    expected: list,
    started: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvidia_smi(gpus, tmp_path, monkeypatch)
    put(monkeypatch, {**environment, "http_proxy": "http://127.0.0.1:9"})
    assert launch.launch(processes, []) == 0
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in started] == expected
    if processes > 1:
        assert all("127.0.0.1" in each["no_proxy"].split(",") for each in started)


@pytest.mark.parametrize(("gpus", "environment"), [(2, {}), (8, {"CUDA_VISIBLE_DEVICES": "5,6"})])
def test_gpus_that_cannot_be_divided_are_refused(
    gpus: int, environment: dict, started: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(gpus, tmp_path, monkeypatch)
    put(monkeypatch, environment)
    with pytest.raises(UserError, match=r"--processes 3 .* 2 GPU.*use 1, 2 processes.*JAX_PLATFORMS=cpu"):
        launch.launch(3, [])
    assert not started
