"""A run's directory: one run at a time, nothing overwritten, everything needed later written down."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alexnet_io.errors import UserError
from alexnet_io.run import directory as run_directory
from alexnet_io.run import directory_lock
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.directory_lock import in_use
from alexnet_io.run.run_description import read_description

FACTS = {
    "model": "single_column",
    "class_names": ["cat", "dog"],
    "normalisation": {"mean": np.array([0.5, 0.25], np.float32)},
    "settings": {"learning_rate": np.float64(0.1), "output": Path("runs/a"), "devices": ("all",)},
}

HOLDER = """
import sys, time
from alexnet_io.run.directory import RunDirectory
run = RunDirectory(sys.argv[1])
run.describe(model="m", class_names=["a"], normalisation={}, settings={})
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def other_process(directory: Path) -> Iterator[subprocess.Popen]:
    """Another process that trains in `directory`."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, directory], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere, so for a while we are nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_new_run_is_described_in_plain_files(tmp_path):
    with RunDirectory(tmp_path / "deep" / "run") as run:
        run.describe(**FACTS, image_size=64)
        description = run.description()
    assert description["classes"] == 2
    assert description["class_names"] == ["cat", "dog"]
    assert description["normalisation"] == {"mean": [0.5, 0.25]}
    assert description["image_size"] == 64
    assert description["settings"] == {"learning_rate": 0.1, "output": "runs/a", "devices": ["all"]}
    assert description["versions"]["jax"]
    assert yaml.safe_load((run.path / "settings.yaml").read_text()) == description["settings"]
    assert json.loads((run.path / "run.json").read_text()) == description
    assert not [path for path in run.path.iterdir() if path.name.endswith(".partial")]


def test_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunDirectory("runs/a") as run:
        monkeypatch.chdir("/")
        run.describe(**FACTS)
    assert run.path == tmp_path / "runs" / "a"
    assert (tmp_path / "runs" / "a" / "run.json").exists()


def test_a_second_run_in_one_directory_is_refused_and_told_by_whom(tmp_path):
    with other_process(tmp_path / "run") as child:
        for resume in (False, True):
            with pytest.raises(UserError) as caught:
                RunDirectory(tmp_path / "run", resume=resume)
        assert f"in use by pid {child.pid} on {socket.gethostname()}, since " in str(caught.value)
        assert in_use(tmp_path / "run")
    assert not in_use(tmp_path / "run")  # a killed one holds nothing


def test_whether_a_run_goes_on_is_told_without_writing(tmp_path):
    assert not in_use(tmp_path / "none") and not in_use(tmp_path)
    assert not list(tmp_path.iterdir())
    with RunDirectory(tmp_path / "run") as run:
        assert in_use(run.path)
        line = (run.path / ".lock").read_text()
        assert re.fullmatch(
            rf"pid {os.getpid()} on {re.escape(socket.gethostname())}, since \d{{4}}-[\d-]+ [\d:]+\n", line
        )
    assert not in_use(run.path)
    assert (run.path / ".lock").read_text() == ""


def test_a_lock_that_cannot_be_had_names_its_reason(tmp_path, monkeypatch):
    """A disk without locks, and whatever else the system may say to it; of locks of others two errors are known."""

    def refuses(code):
        def lockf(file, kind):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(directory_lock.fcntl, "lockf", lockf)

    (tmp_path / ".lock").touch()
    refuses(errno.ENOLCK)
    assert not in_use(tmp_path)
    with pytest.raises(UserError, match=r"cannot lock .*\.lock: No locks available. Choose an --output on a disk with"):
        RunDirectory(tmp_path)
    for code in (errno.EAGAIN, errno.EACCES):
        refuses(code)
        assert in_use(tmp_path)
        with pytest.raises(UserError, match="in use by a process that left no name: choose another --output"):
            RunDirectory(tmp_path)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with other_process(tmp_path / "run") as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert str(child.pid) in (tmp_path / "run" / ".lock").read_text()
        with RunDirectory(tmp_path / "run", resume=True) as run:
            assert run.resumed
            assert (run.path / ".lock").read_text().startswith(f"pid {os.getpid()} on ")


def test_a_second_run_of_the_same_process_is_refused_and_the_first_keeps_its_lock(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        run.describe(**FACTS)
        for _ in range(2):
            with pytest.raises(UserError, match="in use by this very process"):
                RunDirectory(run.path, resume=True)
        code = "import sys; from alexnet_io.run.directory import RunDirectory as R; R(sys.argv[1], resume=True)"
        child = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True)
        assert f"in use by pid {os.getpid()}" in child.stderr
    RunDirectory(run.path, resume=True).close()


def test_an_existing_run_is_neither_overwritten_nor_resumed_by_chance(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        run.describe(**FACTS)
        (run.path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"already holds a run: .*--resume.*--output"):
        RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match=r"no run to resume: leave --resume out"):
        RunDirectory(tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"no run's \(thesis.tex\): choose another --output"):
            RunDirectory(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "thesis.tex")


def test_what_a_run_leaves_that_was_killed_at_once_is_no_obstacle(tmp_path):
    for name in (".lock", "settings.yaml", ".run.json.partial"):
        (tmp_path / name).write_text("half")
    with RunDirectory(tmp_path) as run:
        run.describe(**FACTS)
        assert run.description()["model"] == "single_column"


def test_a_directory_that_is_not_writable_is_named_at_once():
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o555)
        with without_privileges(), pytest.raises(UserError, match=f"{parent}/run: Permission denied.*--output"):
            RunDirectory(Path(parent, "run"))
        Path(parent, "run").mkdir(mode=0o555)
        with without_privileges(), pytest.raises(UserError, match=r"\.lock: Permission denied"):
            RunDirectory(Path(parent, "run"))
        Path(parent, "run").chmod(0)
        with without_privileges(), pytest.raises(UserError, match=r"look into .*Permission denied"):
            RunDirectory(Path(parent, "run"))


def test_default_directories_never_meet(tmp_path):
    made = [
        run_directory.new_default_directory("caffenet", "folder:/my data/pets/", tmp_path / "runs") for _ in range(3)
    ]
    assert len(set(made)) == 3
    assert all(path.is_dir() and "-caffenet-folder-pets" in path.name for path in made)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        run_directory.new_default_directory("caffenet", "digits", tmp_path / "file")


def test_names_that_are_not_utf8_survive(tmp_path):
    strange = os.fsdecode(b"caf\xe9")
    with RunDirectory(tmp_path / strange) as run:
        run.describe(**{**FACTS, "class_names": [strange, "日本"], "settings": {"data": f"folder:/{strange}"}})
        assert run.description()["class_names"] == [strange, "日本"]
        with pytest.raises(UserError, match=r"caf\\xe9 is in use") as caught:
            RunDirectory(run.path, resume=True)
    str(caught.value).encode("utf-8")  # printable anywhere


def test_settings_may_be_a_dataclass_and_their_yaml_given(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        batch_size: int = 128

    with RunDirectory(tmp_path) as run:
        run.describe(**{**FACTS, "settings": Settings()}, settings_yaml="batch_size: 128  # from paper\n")
        assert run.description()["settings"] == {"batch_size": 128}
    assert (tmp_path / "settings.yaml").read_text() == "batch_size: 128  # from paper\n"


def test_a_missing_or_damaged_description_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no run in .*run.json is missing; pass the directory"):
        read_description(tmp_path)
    with RunDirectory(tmp_path / "run") as run:
        run.describe(**FACTS)
    good = json.loads((run.path / "run.json").read_text())
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"class_names": []}, "class_names"),
        ({"class_names": [1]}, "class_names"),
    ):
        (run.path / "run.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match=message):
            read_description(run.path)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=100) | st.text().map(lambda text: json.dumps({"format": text}).encode()))
@example(content=b"[" * 100_000)
@example(content=b"1" * 5_000)
def test_random_bytes_as_a_description_give_only_named_errors(tmp_path_factory, content):
    directory = tmp_path_factory.getbasetemp()
    (directory / "run.json").write_bytes(content)
    with pytest.raises(UserError):
        read_description(directory)
