"""The prepared cache: filled once, whole or not there, shared by runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import encoded, solid, write_folder

import alexnet_io.cache_filling
import alexnet_io.cache_lock
from alexnet_io.cache import PreparedImages, default_cache_dir, prepare_images
from alexnet_io.cache_filling import Filling
from alexnet_io.decoding import Resizing, prepare
from alexnet_io.errors import UserError
from alexnet_io.sources.files import EncodedImages, files_on_disk, image_names

SIZE = Resizing(6, 6, 8)


def listed(root: Path) -> EncodedImages:
    return files_on_disk(root, list(image_names(root)))


def filled(root: Path, **options) -> PreparedImages:
    return prepare_images(listed(root), SIZE, root.parent / "cache", **options)


@pytest.fixture
def root(tmp_path) -> Path:
    write_folder(tmp_path / "images", {"a": 7, "b": 5})
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of all images decoded so far."""
    names: list[str] = []

    def watched(data: bytes, name: str, resizing: Resizing) -> np.ndarray:
        names.append(name)
        return prepare(data, name, resizing)

    monkeypatch.setattr("alexnet_io.sources.files.prepare", watched)
    return names


def test_rows_are_the_prepared_images_in_order(root):
    cache = filled(root, threads=3)
    expected = [prepare((root / name).read_bytes(), name, SIZE) for name in listed(root).names]
    np.testing.assert_array_equal(cache.images, np.stack(expected))
    assert isinstance(cache.images, np.memmap) and not cache.images.flags.writeable
    assert cache.good.tolist() == list(range(12)) and cache.bad == {}


def test_nothing_is_decoded_twice(root, decoded):
    first = filled(root)
    assert len(decoded) == 12
    second = filled(root)
    assert len(decoded) == 12 and second.folder == first.folder
    np.testing.assert_array_equal(first.images, second.images)


@pytest.mark.parametrize("change", ["new file", "new content", "touched", "removed", "size"])
def test_any_change_makes_another_cache(root, change):
    first = filled(root)
    path = root / "a" / "000.png"
    if change == "new file":
        (root / "b" / "new.png").write_bytes(encoded(solid((1, 2, 3))))
    elif change == "new content":
        times = path.stat()
        path.write_bytes(encoded(solid((200, 100, 0), 99, 99)))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "touched":
        os.utime(path, ns=(0, 12345))
    elif change == "removed":
        path.unlink()
    if change == "size":
        assert prepare_images(listed(root), Resizing(6, 6, 9), root.parent / "cache").folder != first.folder
    else:
        assert filled(root).folder != first.folder


@pytest.mark.parametrize("damage", ["index", "not json", "lies", "short", "header", "checksums", "gone", "empty"])
def test_a_damaged_cache_is_made_again(root, decoded, damage):
    first = filled(root)
    expected, folder = np.array(first.images), first.folder
    del first
    if damage == "index":
        (folder / "index.json").unlink()
    elif damage == "not json":
        (folder / "index.json").write_bytes(b"\xff\x00{")
    elif damage == "lies":
        (folder / "index.json").write_text(json.dumps({"format": 1, "shape": [12, 6, 6, 3], "bad": 3}))
    elif damage == "short":
        os.truncate(folder / "images.npy", 300)
    elif damage == "header":
        with open(folder / "images.npy", "r+b") as file:
            file.write(b"not an array")
    elif damage == "checksums":
        (folder / "checksums.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '|O'")
    elif damage == "gone":
        (folder / "images.npy").unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    again = filled(root)
    assert len(decoded) == 24
    np.testing.assert_array_equal(again.images, expected)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["index.json", "images.npy", "checksums.npy"]), data=st.data())
def test_random_bytes_in_a_cache_never_escape(root, name, data):
    folder = filled(root).folder
    content = bytearray((folder / name).read_bytes())
    if data.draw(st.booleans()):
        content = bytearray(data.draw(st.sampled_from([b"", b"PK\3\4", b"\x93NUMPY\1\0"])) + data.draw(st.binary()))
    else:
        for _ in range(3):  # in the header of an array
            content[data.draw(st.integers(0, min(len(content), 128) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    cache = filled(root)
    assert cache.images.shape == (12, 6, 6, 3) and cache.images.dtype == np.uint8


def test_the_lock_and_leftovers_are_small(root):
    cache = filled(root)
    assert sorted(path.name for path in cache.folder.iterdir()) == ["checksums.npy", "images.npy", "index.json"]
    others = [path for path in cache.folder.parent.iterdir() if path != cache.folder]
    assert [path.name for path in others] == [cache.folder.name + ".lock"] and others[0].stat().st_size == 0


# Interrupted


class Interruption(BaseException):
    """Stands for Ctrl-C."""


def test_an_interrupted_filling_goes_on(root, decoded, monkeypatch):
    real = Filling.write

    def failing(self, number, pixels, checksum):
        if len(decoded) > 5:
            raise Interruption
        real(self, number, pixels, checksum)

    with monkeypatch.context() as patch:
        patch.setattr(Filling, "write", failing)
        with pytest.raises(Interruption):
            filled(root, threads=1)
    done = len(decoded)
    assert done == 6 and not list((root.parent / "cache").glob("images-*[0-9a-f]"))
    cache = filled(root)
    assert len(decoded) == done + 12 - 5  # five rows were kept
    np.testing.assert_array_equal(cache.images[:, 0, 0, 0], np.arange(12))


@pytest.mark.parametrize("name", ["images.npy", "done.bin", "checksums.bin"])
@pytest.mark.parametrize("damage", ["short", "gone", "random"])
def test_a_torn_filling_starts_anew(root, tmp_path, decoded, name, damage):
    cache = filled(root)
    expected = np.array(cache.images)
    partial = cache.folder.with_name(cache.folder.name + ".partial")
    cache.folder.rename(partial)
    (partial / "checksums.npy").unlink()
    np.zeros(12, np.uint32).tofile(partial / "checksums.bin")
    np.ones(12, np.uint8).tofile(partial / "done.bin")
    victim = partial / name
    if damage == "short":
        os.truncate(victim, victim.stat().st_size - 1)
    elif damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(os.urandom(100))
    again = filled(root)
    np.testing.assert_array_equal(again.images, expected)
    assert len(decoded) == 24


FILL = """
import sys, time
from pathlib import Path
from alexnet_io import cache, cache_filling
from alexnet_io.decoding import Resizing
from alexnet_io.sources.files import EncodedImages, files_on_disk, image_names

decode = EncodedImages.pixels
EncodedImages.pixels = lambda *what: (time.sleep(0.002), decode(*what))[1]
cache_filling._SYNC_EVERY_S = cache_filling._REPORT_EVERY_S = 0.01
root = Path(sys.argv[1])
files = files_on_disk(root, list(image_names(root)))
print(cache.prepare_images(files, Resizing(6, 6, 8), root.parent / "cache", threads=1).images.sum())
"""


def start_filling(root: Path) -> subprocess.Popen:
    """Fills the cache of `root` in a process of its own, slowly, and prints the sum of all its bytes."""
    return subprocess.Popen(
        [sys.executable, "-c", FILL, str(root)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def test_killed_while_filling(root):
    """SIGKILL at some moment, again and again: the cache comes to be all the same, and right."""
    write_folder(root, {"c": 300}, start=12)
    kept = []
    for _ in range(3):
        with start_filling(root) as process:
            begun = len(kept)
            while process.poll() is None and len(kept) == begun:
                # Rows that are known to be written; the file itself may be caught half written.
                states = [np.fromfile(path, np.uint8) for path in root.parent.glob("cache/*.partial/done.bin")]
                kept += [int(state.sum()) for state in states if state.sum() > (kept[-1] if kept else 0)]
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
    assert len(kept) == 3 and 0 < kept[0] < kept[1] < kept[2] < 312  # each went on where the last was killed
    cache = filled(root)
    names = listed(root).names
    expected = [prepare((root / name).read_bytes(), name, SIZE) for name in names]
    np.testing.assert_array_equal(cache.images, np.stack(expected))


# Shared


def test_runs_that_start_together_share_one_filling(root):
    write_folder(root, {"c": 100}, start=12)
    runs = [start_filling(root) for _ in range(3)]
    sums = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert {int(sum_) for sum_ in sums} == {int(filled(root).images.sum())}
    assert not list(root.parent.glob("cache/*.partial"))


def test_a_run_waits_for_the_one_that_fills(root, monkeypatch):
    monkeypatch.setattr(alexnet_io.cache_lock, "_POLL_S", 0.01)
    cache = filled(root)
    shutil.move(cache.folder, root.parent / "kept")
    heard, opened = [], []
    with alexnet_io.cache_lock.cache_lock(cache.folder, lambda: None):
        waiting = threading.Thread(
            target=lambda: opened.append(filled(root, progress=lambda done, total, what: heard.append(what)))
        )
        waiting.start()
        while not heard:
            time.sleep(0.01)
        assert heard[0] == "waiting for another run to prepare the images" and not opened
        shutil.move(root.parent / "kept", cache.folder)
    waiting.join(30)
    assert opened[0].folder == cache.folder and "preparing images" not in heard


def test_waiting_for_a_run_that_hangs_has_an_end(root, monkeypatch):
    monkeypatch.setattr(alexnet_io.cache_lock, "_POLL_S", 0.01)
    monkeypatch.setattr(alexnet_io.cache_lock, "STALL_LIMIT_S", 0.1)
    cache = filled(root)
    shutil.rmtree(cache.folder)
    with (
        alexnet_io.cache_lock.cache_lock(cache.folder, lambda: None),
        pytest.raises(UserError, match=r"another process holds .*\.lock"),
    ):
        filled(root)


# Unreadable files


def test_unreadable_files_are_left_out_by_name(root, decoded):
    (root / "a" / "001.png").write_bytes(b"<html>404</html>")
    (root / "b" / "002.png").write_bytes(b"")
    (root / "b" / "003.png").write_bytes((root / "b" / "003.png").read_bytes()[:50])
    for _ in range(2):  # the second time from the finished cache
        cache = filled(root)
        assert sorted(cache.bad) == [1, 9, 10]
        assert cache.good.tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 11]
        assert "a/001.png: this is HTML" in cache.bad[1]
        assert "b/002.png: the file is empty" in cache.bad[9]
    assert len(decoded) == 12
    with pytest.raises(UserError, match=r"(?s)3 image files can't be read, more than the 2 .*b/003\.png: damaged"):
        filled(root, max_bad=2)


def test_too_many_unreadable_files_end_it_early(root, decoded, monkeypatch):
    monkeypatch.setattr(alexnet_io.cache_filling, "_REPORT_EVERY_S", 0.001)
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"can't be read, more than the 2 that --max-bad-images leaves out"):
        filled(root, max_bad=2)
    with pytest.raises(UserError, match="none of the image files"):
        filled(root, max_bad=100)


def test_a_file_that_vanishes_is_one_that_cannot_be_read(root):
    files = listed(root)
    (root / "a" / "003.png").unlink()
    cache = prepare_images(files, SIZE, root.parent / "cache")
    assert list(cache.bad) == [3] and "a/003.png: cannot be read: No such file" in cache.bad[3]


def test_a_file_that_hangs_is_an_error_in_time(root, monkeypatch):
    """A pipe that nobody writes to: opening it hangs in the system."""
    monkeypatch.setattr(alexnet_io.cache_filling, "STALL_LIMIT_S", 0.3)
    (root / "a" / "002.png").unlink()
    os.mkfifo(root / "a" / "002.png")
    with pytest.raises(UserError, match=r"a/002\.png could not be read within 0\.3 s"):
        filled(root)
    os.close(os.open(root / "a" / "002.png", os.O_WRONLY))  # frees the thread that was left behind


# Places


def test_a_place_that_cannot_be_written(root):
    (root.parent / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot prepare images in .*cache.*--cache-dir"):
        filled(root)


def test_a_disk_too_small_is_said_before_decoding(root, decoded, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"need 0\.0 GB in .*where 0\.0 GB are free.*--cache-dir"):
        filled(root)
    assert decoded == []


def test_a_disk_that_fills_up_on_the_way(root):
    """/dev/full takes no byte: the real error of a full disk."""
    real = os.open

    def full(path, flags, *more, **named):
        rows = str(path).endswith("images.npy") and flags & os.O_RDWR
        return real("/dev/full" if rows else path, flags, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet_io.cache_filling.os, "open", full)
        with pytest.raises(UserError, match="No space left on device"):
            filled(root)
    assert filled(root).good.tolist() == list(range(12))


def test_default_place_follows_the_desktop_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "jax_alexnet"
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_cache_dir() == tmp_path / ".cache" / "jax_alexnet"


def test_progress_counts_up_to_all(root):
    heard = []
    filled(root, progress=lambda *what: heard.append(what))
    assert heard[-1] == (12, 12, "preparing images")
    assert all(0 <= done <= total == 12 for done, total, _ in heard)
