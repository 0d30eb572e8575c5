"""`parity gpu`: every part in a process of its own, whatever becomes of it; and what is read from the profiler."""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_io.command_line.settings import parse
from alexnet_io.errors import UserError
from alexnet_io.run.machine import usable_cores
from parity.__main__ import main
from parity.commands.table import TABLE
from parity.speed.on_gpu import command, kernels, page, running, seen
from parity.speed.on_gpu.parts import Part, chosen_parts, measured, parts
from parity.speed.settings import OnGpu

FINDINGS = {"schema": "parity-kernels/1"}


def part(folder: Path, name: str, code: str, weight: float = 1.0, **changes: Any) -> Part:
    """A part that runs a line of Python, where FILE is what it should leave behind."""
    result = folder / f"{name}.json"
    line = code.replace("FILE", repr(str(result)))
    return Part(name, "asked", lambda seconds: ["-c", line], weight, result, {}, **changes)


def outcomes(rows: list[Part], folder: Path, seconds: float, *, on_gpu: bool = True) -> dict[str, running.Outcome]:
    found = running.run(rows, seconds, folder, lambda line: None, on_gpu=on_gpu)
    return {outcome.name: outcome for outcome in found}


def test_whatever_becomes_of_a_part_the_others_run(tmp_path: Path) -> None:
    child = tmp_path / "child"
    rows = [
        part(tmp_path, "whole", "import json; print('said'); json.dump({'a': 1}, open(FILE, 'w'))"),
        part(tmp_path, "unequal", "import sys; open(FILE, 'w').write('{\"a\": 2}'); sys.exit(1)"),
        part(tmp_path, "raises", "raise SystemError('broken driver')"),
        part(tmp_path, "dies", "import os; os.kill(os.getpid(), 11)"),
        part(tmp_path, "half", "open(FILE, 'w').write('{\"a\"')"),
        part(tmp_path, "silent", "pass"),
        part(tmp_path, "untimed", "import sys; open(FILE, 'w').write('{\"rows\": []}'); sys.exit(1)"),
        part(tmp_path, "gpu only", "pass", only_on_gpu=True),
        part(
            tmp_path,
            "hangs",
            "import subprocess, time; print('begun', flush=True);"
            f"p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)",
            weight=0.04,
        ),
        part(tmp_path, "last", "open(FILE, 'w').write('{}')"),
    ]
    found = outcomes(rows, tmp_path, 60.0, on_gpu=False)
    assert {name: outcome.state for name, outcome in found.items()} == {
        "whole": "done", "unequal": "differs", "raises": "failed", "dies": "failed", "half": "failed",
        "silent": "failed", "untimed": "out of time", "gpu only": "not run", "hangs": "out of time", "last": "done",
    }  # fmt: skip
    assert (found["whole"].found, found["whole"].said) == ({"a": 1}, ["said"])
    assert found["unequal"].found == {"a": 2}
    assert found["raises"].said[-1] == "SystemError: broken driver"
    assert (found["dies"].exit_code, found["hangs"].exit_code) == (-11, None)
    assert found["hangs"].said == ["begun"]
    assert shlex.split(found["whole"].command)[:2] == [sys.executable, "-c"]
    state = Path(f"/proc/{child.read_text()}/stat")  # what a part started ends with it
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_parts_share_the_time_and_the_rest_is_not_run(tmp_path: Path) -> None:
    rows = [part(tmp_path, "long", "import time; time.sleep(60)", 3.0), part(tmp_path, "late", "pass", 0.5)]
    began = time.monotonic()
    found = outcomes(rows, tmp_path, 1.75)
    assert time.monotonic() - began < 6
    assert found["long"].state == "out of time"
    assert found["long"].seconds == pytest.approx(1.5, abs=0.6)
    assert (found["late"].state, found["late"].said) == ("not run", ["no time left"])


def test_results_and_page_are_there_after_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out put"

    def two(chosen: OnGpu, folder: Path) -> list[Part]:
        first = part(folder, "first", "open(FILE, 'w').write('{}')")
        look = f"import os; assert os.path.exists({str(output / 'index.html')!r}); raise KeyError('<b>gone</b>')"
        return [first, part(folder, "second", look)]

    monkeypatch.setattr(command, "parts", two)
    assert main(["gpu", "--output", str(output), "--seconds", "60"]) == 1
    found = json.loads((output / "results.json").read_text())
    assert [row["state"] for row in found["parts"]] == ["done", "failed"]
    assert "KeyError" in found["parts"][1]["said"][-1]
    shown = (output / "index.html").read_text()
    assert "&lt;b&gt;gone" in shown
    assert "<b>gone" not in shown
    assert "[2/2] second: failed after" in capsys.readouterr().out
    assert main(["gpu", "--output", str(output), "--parts", "first"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "kernel,nonsense"], "nothing is called 'nonsense'"),
        (["--models", "single_column,alexnet"], "--models"),
        (["--precision", "float16"], "--precision"),
        (["--output", "/dev/null/x"], "--output /dev/null/x"),
    ],
)
def test_what_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, SystemExit)) as refused:
        main(["gpu", *words])
    assert said in str(refused.value) + capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("speed single_column", ["speed single_column"]),  # the whole name of one, and what others begin with
        ("kernels", ["kernels single_column", "kernels two_column"]),
        ("tests,machine,speed two_column", ["machine", "speed two_column", "tests"]),
    ],
)
def test_a_whole_name_is_one_part(words: str, chosen: list[str], tmp_path: Path) -> None:
    assert [row.name for row in chosen_parts(parts(OnGpu(), tmp_path), words)] == chosen


def test_parts_are_the_commands_that_users_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--given")
    rows = parts(OnGpu(), tmp_path)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert names[:5] == [
        "machine", "layers single_column", "layers two_column", "speed single_column", "speed two_column",
    ]  # fmt: skip
    assert [row.name for row in rows if row.only_on_gpu] == ["tests"]
    for row in rows:
        words = row.words(measured(100.0))
        assert words[-1] == f"--json={row.result}" or row.name == "tests"
        if words[:2] == ["-m", "parity"]:
            parse(TABLE[words[2]].settings, "parity", words[3:])  # nothing in it is refused
    # Compiling for a GPU takes all cores, and what was asked of XLA besides is asked still.
    kernel = next(row for row in rows if row.name.startswith("kernels"))
    assert json.loads(kernel.words(100)[2])["threads"] == usable_cores()
    assert kernel.variables["XLA_FLAGS"].split() == ["--given", "--xla_gpu_enable_command_buffer="]
    main_speed = rows[3].words(measured(100.0))
    assert {"--precision=bfloat16", "--batch-size=1024", "--devices=1,all", "--budget-seconds=85"} <= set(main_speed)


def test_a_framework_that_is_broken_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("no driver")

    monkeypatch.setattr(seen, "_torch", broken)
    found = seen.look()
    assert found["torch"] == {"error": "RuntimeError: no driver"}
    assert found["jax"]["platform"] == "cpu"
    assert found["versions"]["jax"]


def line(name: str, *found: tuple[str, float, dict[str, Any]]) -> SimpleNamespace:
    rows = [SimpleNamespace(name=kernel, duration_ns=ns, stats=list(stats.items())) for kernel, ns, stats in found]
    return SimpleNamespace(name=name, events=rows)


def profile(**planes: list[SimpleNamespace]) -> SimpleNamespace:
    named = {"gpu": "/device:GPU:0", "host": "/host:CPU"}
    return SimpleNamespace(planes=[SimpleNamespace(name=named[key], lines=lines) for key, lines in planes.items()])


def test_kernels_of_a_gpu_are_those_of_its_streams() -> None:
    found = profile(
        host=[line("python", ("step", 9e9, {"hlo_op": "fusion.1"}))],
        gpu=[
            line("Stream #13(Compute)", ("loop_fusion_1", 2000.0, {"hlo_op": "fusion.1"}), ("memset", 5.0, {})),
            line("XLA Ops", ("fusion.1", 2000.0, {"hlo_op": "fusion.1"})),
        ],
    )
    (event,) = kernels.events(found)
    assert (event.kernel, event.operation, event.seconds) == ("loop_fusion_1", "fusion.1", pytest.approx(2e-6))


def test_measured_kernels_stand_beside_the_programs_launches() -> None:
    def launch(name: str, layer: str, direction: str, seconds: float, kind: str = "fusion") -> dict[str, Any]:
        return {"name": name, "layer": layer, "direction": direction, "seconds": seconds, "kind": kind}

    launches = [
        launch("cudnn-conv.1", "conv1", "forward", 3e-6, "cudnn$convForward"),
        launch("fusion.1", "conv1", "forward", 1e-6),
        launch("fusion.2", "conv1", "backward", 2e-6),
        launch("fusion.3", "", "", 1e-6),
    ]
    ran = [
        kernels.Event("sm90_xmma_fprop", "cudnn-conv.1", 8e-6), kernels.Event("sm90_xmma_fprop", "cudnn-conv.1", 4e-6),
        kernels.Event("reorder", "cudnn-conv.1", 2e-6), kernels.Event("loop_fusion", "fusion.1", 4e-6),
        kernels.Event("loop_fusion", "fusion.2", 2e-6), kernels.Event("copy", "elsewhere", 6e-6),
    ]  # fmt: skip
    found = kernels.summary(ran, launches, steps=2)
    assert found["layers"] == [
        {"layer": "conv1", "direction": "forward", "seconds": pytest.approx(9e-6), "modelled": pytest.approx(4e-6)},
        {"layer": "conv1", "direction": "backward", "seconds": pytest.approx(1e-6), "modelled": pytest.approx(2e-6)},
        {"layer": "other", "direction": "forward", "seconds": 0.0, "modelled": pytest.approx(1e-6)},
    ]
    assert (found["seconds"], found["unplaced"]) == (pytest.approx(13e-6), pytest.approx(3e-6))
    first = found["kernels"][0]
    assert (first["name"], first["library"], first["seconds"]) == ("sm90_xmma_fprop", "cuDNN", pytest.approx(6e-6))
    assert kernels.library("nvjet_hsh_128x256", "cublas$lt$matmul") == "cuBLAS"
    assert kernels.library("loop_add_fusion", "fusion") == "XLA"
    shown = kernels.table({**found, "modelled": "h100"})
    assert "conv1       forward          9.0       4.0" in shown


@pytest.mark.matrix
@pytest.mark.slow
def test_rehearsal_on_a_cpu(tmp_path: Path) -> None:
    """The parts that read a profile, as they run on a GPU."""
    words = ["--models", "cifar_80sec", "--batch-size", "4", "--precision", "float32", "--parts", "machine,kernels"]
    assert main(["gpu", *words, "--seconds", "200", "--output", str(tmp_path)]) == 0
    machine, found = [row["found"] for row in json.loads((tmp_path / "results.json").read_text())["parts"]]
    assert machine["jax"]["platform"] == "cpu"
    assert os.cpu_count() and machine["machine"]["cores"]
    named = {(row["layer"], row["direction"]) for row in found["layers"] if row["seconds"] > 0}
    assert {("conv1", "forward"), ("conv3", "backward"), ("fc64", "update")} <= named
    assert found["unplaced"] < 0.2 * found["seconds"]
    assert page.line({"found": found, "said": []}).startswith(f"{found['seconds'] * 1e3:.2f} ms of kernels a step")
