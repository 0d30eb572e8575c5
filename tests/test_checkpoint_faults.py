"""Checkpoints under fire: killed saves, damaged files, full disks. Each fault is really caused."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alexnet_io.errors import UserError
from jax_alexnet.files import checkpoint, checkpoint_arrays, checkpoint_files, manifest

TEMPLATE = {"params": {"kernel": np.zeros((6, 4), np.float32), "bias": np.zeros(4, np.float32)}, "step": np.int32(0)}
FACTS = {"model": "single_column", "classes": 10, "optimizer": "adam"}


def state_at(step: int) -> dict:
    numbers = np.random.default_rng(step)
    return {
        "params": {
            "kernel": numbers.normal(size=(6, 4)).astype(np.float32),
            "bias": numbers.normal(size=4).astype(np.float32),
        },
        "step": np.int32(step),
    }


def same(one: dict, other: dict) -> bool:
    flat = [checkpoint_arrays.to_host(tree) for tree in (one, other)]
    return all(flat[0][name].tobytes() == flat[1][name].tobytes() for name in flat[0].keys() | flat[1].keys())


@pytest.fixture
def saved(tmp_path) -> Path:
    """A directory with good checkpoints of steps 1 and 2."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state_at(step), FACTS)
    return tmp_path


def restore_newest(directory: Path, **options) -> checkpoint.Restored:
    restored = checkpoint.restore_newest(directory, TEMPLATE, **options)
    assert restored is not None
    return restored


def array_file(path: Path) -> Path:
    return path / "state" / "params.kernel" / "0.0"


def truncate_array(path: Path) -> None:
    os.truncate(array_file(path), 40)


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)


DAMAGES = {
    "truncated array": truncate_array,
    "empty array": lambda path: os.truncate(array_file(path), 0),
    "missing array": lambda path: array_file(path).unlink(),
    "flipped bit in an array": lambda path: flip_bit(array_file(path), 137),
    "missing state": lambda path: shutil.rmtree(path / "state"),
    "truncated manifest": lambda path: os.truncate(path / "manifest.json", 100),
    "empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "altered manifest": lambda path: (path / "manifest.json").write_text(
        (path / "manifest.json").read_text().replace('"classes": 10', '"classes": 11')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_one_before_used(saved, damage):
    damage(saved / "step_00000002")

    with pytest.raises(checkpoint.DamagedCheckpoint, match=r"step_00000002.*[Ss]trict"):
        restore_newest(saved, strict=True)
    with pytest.warns(checkpoint.CheckpointWarning, match="step_00000002.*ignored"):
        assert restore_newest(saved, read_only=True).step == 1
    assert (saved / "step_00000002").exists()

    with pytest.warns(checkpoint.CheckpointWarning, match=r"set aside as step_00000002\.bad"):
        restored = restore_newest(saved)
    assert restored.step == 1
    assert same(restored.state, state_at(1))
    assert sorted(path.name for path in saved.iterdir()) == ["step_00000001", "step_00000002.bad"]
    assert restore_newest(saved).step == 1  # and no second warning


def test_a_flipped_bit_anywhere_is_noticed(saved):
    """In every file of a checkpoint: its first byte, one in the middle, the last one."""
    path = saved / "step_00000002"
    files = [file for file in path.rglob("*") if file.is_file() and file.stat().st_size]
    assert len(files) >= 8
    for file in files:
        original = file.read_bytes()
        for position in (3, 4 * len(original), 8 * len(original) - 1):
            flip_bit(file, position)
            with pytest.raises(checkpoint.DamagedCheckpoint):
                checkpoint.restore(path, TEMPLATE)
            file.write_bytes(original)
    assert same(checkpoint.restore(path, TEMPLATE).state, state_at(2))


def test_a_flipped_bit_in_a_large_array_is_noticed_by_the_digest_of_the_array(tmp_path):
    """Large files are not read twice, so here the digest of the array itself must speak up."""
    state = {"w": np.random.default_rng(0).normal(size=(200, 200))}
    path = checkpoint.save(tmp_path, 1, state, {})
    flip_bit(path / "state" / "w" / "0.0", 1_234_567)
    with pytest.raises(checkpoint.DamagedCheckpoint, match="w isn't what was saved"):
        checkpoint.restore(path, state)


@pytest.mark.parametrize("content", [None, "readme.txt"])
def test_an_empty_or_foreign_directory_that_looks_newer_is_put_aside(saved, content):
    foreign = saved / "step_00000999"
    foreign.mkdir()
    if content:
        (foreign / content).write_text("mine")
    with pytest.warns(checkpoint.CheckpointWarning, match="step_00000999"):
        assert restore_newest(saved).step == 2
    if content:
        assert (saved / "step_00000999.bad" / content).read_text() == "mine"
    newest = checkpoint.newest(saved)
    assert newest is not None and newest.step == 2


def test_what_is_foreign_is_never_deleted_by_a_save(saved):
    foreign = saved / "step_00000003"
    foreign.mkdir()
    (foreign / "readme.txt").write_text("mine")
    checkpoint.save(saved, 3, state_at(3), FACTS)
    assert (saved / "step_00000003.bad" / "readme.txt").read_text() == "mine"
    assert same(restore_newest(saved).state, state_at(3))


def test_if_every_checkpoint_is_bad_the_run_is_refused_again_and_again(saved):
    for path in saved.iterdir():
        truncate_array(path)
    with (
        pytest.warns(checkpoint.CheckpointWarning),
        pytest.raises(UserError, match=r"(?s)no intact checkpoint.*step_00000002.*step_00000001"),
    ):
        checkpoint.restore_newest(saved, TEMPLATE)
    with pytest.raises(UserError, match=r"no intact checkpoint.*step_00000001\.bad"):
        checkpoint.restore_newest(saved, TEMPLATE)


def test_another_model_class_count_or_optimizer_is_refused_before_anything_is_read(saved, monkeypatch):
    monkeypatch.setattr(checkpoint_arrays, "_orbax", lambda: pytest.fail("arrays were touched"))
    asked = {"model": "two_column", "classes": 1000, "optimizer": "sgd"}
    with pytest.raises(UserError) as caught:
        checkpoint.restore_newest(saved, TEMPLATE, expected=asked)
    for part in ("'single_column'", "'two_column'", "10", "1000", "'adam'", "'sgd'"):
        assert part in str(caught.value)
    assert not list(saved.glob("*.bad"))


def test_other_shapes_and_leaves_are_refused_before_anything_is_read(saved, monkeypatch):
    monkeypatch.setattr(checkpoint_arrays, "_orbax", lambda: pytest.fail("arrays were touched"))
    template = {
        "params": {"kernel": np.zeros((6, 5), np.float32), "bias": np.zeros(4, np.float64)},
        "velocity": np.zeros(3),
    }
    with pytest.raises(UserError) as caught:
        checkpoint.restore_newest(saved, template)
    for part in (
        "params/kernel: saved float32[6, 4], asked for float32[6, 5]",
        "params/bias: saved float32[4], asked for float64[4]",
        "velocity is not in the checkpoint",
        "step is only in the checkpoint",
    ):
        assert part in str(caught.value)
    assert not list(saved.glob("*.bad"))


@pytest.mark.parametrize("when", ["before writing", "while orbax writes"])
def test_a_full_disk_ends_the_save_and_keeps_the_last_good_one(saved, monkeypatch, when):
    """A limit on the size of files makes writes fail as a full disk does."""
    if when == "while orbax writes":
        monkeypatch.setattr(checkpoint_files, "need_space", lambda *_: None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"w": np.random.default_rng(0).normal(size=(1000, 1000))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="step_00000003"):
            checkpoint.save(saved, 3, big, FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in saved.iterdir()) == ["step_00000001", "step_00000002"]
    assert same(restore_newest(saved).state, state_at(2))
    checkpoint.save(saved, 3, state_at(3), FACTS)  # and once there is room, saving works again
    assert restore_newest(saved).step == 3


def test_every_byte_is_on_the_disk_before_a_checkpoint_takes_its_name(saved, monkeypatch):
    """What a cut of the power would leave: each file was forced to the disk under its temporary name."""
    forced, sync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (forced.add(os.fstat(number).st_ino), sync(number))[1])
    path = checkpoint.save(saved, 3, state_at(3), FACTS)
    missing = [file for file in path.rglob("*") if file.is_file() and file.stat().st_ino not in forced]
    assert not missing


def test_room_is_asked_for_where_the_system_can_say(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda number, start, size: asked.append((start, size)))
    checkpoint_files.need_space(saved, 1000)
    checkpoint_files.need_space(saved, 0)
    monkeypatch.delattr(os, "posix_fallocate")
    checkpoint_files.need_space(saved, 1000)
    assert asked == [(0, 1000)] and not (saved / "reserved").exists()


def test_a_disk_that_cannot_reserve_room_is_tried_all_the_same(saved, monkeypatch):
    """Some file systems know no reserving, which is no reason to fail; a quota is one."""

    def answers(code):
        def fallocate(number, start, size):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", fallocate)

    for code in (errno.EINVAL, errno.EOPNOTSUPP):
        answers(code)
        checkpoint_files.need_space(saved, 1000)
        assert not (saved / "reserved").exists()
    answers(errno.EDQUOT)
    with pytest.raises(OSError, match="quota"):
        checkpoint_files.need_space(saved, 1000)


def test_room_that_is_just_enough_is_enough_and_what_is_missing_is_said_in_megabytes(saved, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    for free in (1000, 1001):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        checkpoint_files.need_space(saved, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000_600_000))
    with pytest.raises(OSError, match=r"^7000001 MB are needed and 5000001 MB are free$"):
        checkpoint_files.need_space(saved, 7_000_000_600_000)


def test_only_what_saves_left_behind_is_removed(saved):
    """Nothing of others, whatever it is named, and nothing that was set aside; what can't be removed is no obstacle."""
    names = ["notes.old", "step_00000001.bad", "step_00000001.zip", "step_00000002.txt"]
    for name in (*names, ".saving-1", ".removing-step_00000003/state", "step_00000001.old", "step_00000007.old"):
        path = saved / name
        path.parent.mkdir(exist_ok=True)
        path.touch() if name == ".saving-1" else path.mkdir()
    checkpoint_files.remove_leftovers(saved)
    found = [path.name for path in checkpoint_files.entries(saved)]
    # Of a step that was being replaced the old checkpoint goes where the new one is, and comes back where it isn't.
    assert found == sorted([".saving-1", "step_00000001", "step_00000002", "step_00000007", *names])


def test_what_is_set_aside_gets_a_name_of_its_own(tmp_path, monkeypatch):
    for ending in (".bad", ".bad.2", ".bad.3"):
        (tmp_path / "step_00000001").mkdir()
        aside = checkpoint_files.set_aside(tmp_path / "step_00000001")
        assert aside == tmp_path / f"step_00000001{ending}"
    (tmp_path / "step_00000002").mkdir()

    def refuses(*_):
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "rename", refuses)
    assert checkpoint_files.set_aside(tmp_path / "step_00000002") is None


def test_a_save_that_failed_is_removed_against_writers_that_go_on(tmp_path, monkeypatch):
    """They fail the first two attempts; the third is the last, and no time is lost on others."""
    place, remove, calls, waits = tmp_path / "half", shutil.rmtree, [], []
    place.mkdir()

    def rmtree(path, ignore_errors=False):
        calls.append(path)
        if len(calls) > 2:
            remove(path)
        elif not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "a file appeared")

    monkeypatch.setattr(checkpoint_files.shutil, "rmtree", rmtree)
    monkeypatch.setattr(checkpoint_files.time, "sleep", waits.append)
    checkpoint_files.discard(place)
    assert not place.exists() and calls == [place] * 3
    assert len(waits) == 2 and 0 < sum(waits) < 1


def test_too_little_room_is_said_before_writing(saved):
    petabytes = np.broadcast_to(np.zeros(1), (2**50,))
    with pytest.raises(UserError, match=r"step_00000003: \d+ MB are needed and \d+ MB are free"):
        checkpoint.save(saved, 3, {"w": petabytes}, FACTS)
    assert sorted(path.name for path in saved.iterdir()) == ["step_00000001", "step_00000002"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/checkpoints/step_00000001"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 1, state_at(1), FACTS)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_save_ended_between_any_two_changes_of_the_disk_loses_nothing(saved, tmp_path_factory, monkeypatch):
    """Every rename, creation and removal in turn is the last and half done; also when a step is saved again."""
    work = tmp_path_factory.mktemp("killed") / "checkpoints"
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here
    remove_tree = shutil.rmtree
    calls = 0
    ends_at = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls >= ends_at:  # a dead process does nothing more, no cleaning up either
                if calls == ends_at and function is remove_tree:
                    Path(arguments[0], "manifest.json").unlink(missing_ok=True)
                raise Killed
            return function(*arguments, **options)

        return call

    saves = 0
    for step in (3, 2):
        while True:
            saves += 1
            ends_at += 1
            calls = 0
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(saved, work)
            with monkeypatch.context() as patch:
                for owner, name in (
                    (os, "replace"),
                    (Path, "rename"),
                    (Path, "mkdir"),
                    (shutil, "rmtree"),
                ):
                    patch.setattr(owner, name, counted(getattr(owner, name)))
                try:
                    checkpoint.save(work, step, state_at(step + 10), FACTS)
                except Killed:
                    finished = False
                else:
                    finished = True
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # no damaged checkpoint may be met
                restored = restore_newest(work)
            wanted = {3: [state_at(2), state_at(13)], 2: [state_at(2), state_at(12)]}[step]
            assert any(same(restored.state, one) for one in wanted[-1 if finished else 0 :]), (step, ends_at)
            names = sorted(path.name for path in work.iterdir())
            assert len(names) >= 2
            for name in names:  # no leftovers, nothing half removed
                checkpoint.restore(work / name, TEMPLATE)
            if finished:
                break
        assert ends_at > 5
        ends_at = 0
    assert saves > 12


KILLED_PROGRAM = """
import sys, numpy as np
from jax_alexnet.files import checkpoint

first = int(sys.argv[2])
with checkpoint.BackgroundSaver(sys.argv[1]) as saver:
    for step in range(first, first + 10_000):
        saver.save(step, {"a": np.full((300, 300), step), "b": np.full(5, step)}, {}, metric=step % 7)
        saver.wait()
        print(step, flush=True)
"""


def test_sigkill_at_random_moments_of_background_saves(tmp_path):
    """Whatever was reported as saved, or something newer, is what the next process finds, complete."""
    moments = random.Random(2012)
    template = {"a": np.zeros((300, 300), int), "b": np.zeros(5, int)}
    step = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED_PROGRAM, tmp_path, str(step + 1)],
            env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline().strip() == str(step + 1)
        time.sleep(moments.uniform(0.0, 0.3))
        child.kill()
        rest = child.stdout.read().split()
        child.stdout.close()
        assert child.wait() == -9
        reported = int(rest[-1]) if rest else step + 1
        restored = checkpoint.restore_newest(tmp_path, template)
        assert restored is not None
        assert reported <= restored.step <= reported + 1
        assert (restored.state["a"] == restored.step).all()
        assert (restored.state["b"] == restored.step).all()
        assert not [path.name for path in tmp_path.iterdir() if not path.name.startswith("step_")]
        assert not list(tmp_path.glob("*.bad"))
        step = restored.step


def test_a_checkpoint_of_a_newer_version_is_not_called_damaged(saved):
    file = saved / "step_00000002" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(UserError, match="newer version") as caught:
        restore_newest(saved)
    assert not isinstance(caught.value, checkpoint.DamagedCheckpoint)


def test_a_checkpoint_removed_while_it_is_looked_at_is_passed_over(saved, monkeypatch):
    """A run that goes on prunes under the eyes of an evaluation: no warning, no error."""
    real = checkpoint_files.candidates
    monkeypatch.setattr(
        checkpoint_files, "candidates", lambda directory: [directory / "step_00000009", *real(directory)]
    )
    assert restore_newest(saved, read_only=True).step == 2


NOTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
KEYS = st.sampled_from(["format", "sha256", "leaves", "step", "metric", "metadata", "x"])
JSON = st.recursive(
    NOTHING, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=7), max_leaves=10
)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(content=b"[" * 100_000)
@example(content=b"9" * 5000)
@example(content=b'{"format": 1, "sha256": 1, "leaves": {"a": null}}')
def test_anything_as_a_manifest_gives_only_named_errors(tmp_path_factory, content):
    directory = tmp_path_factory.getbasetemp()
    (directory / "manifest.json").write_bytes(content)
    with pytest.raises(UserError):
        manifest.read(directory)
