"""The prepared cache: filled once, whole or not there, shared by runs."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import encoded, solid, write_folder
from PIL import Image

import alexnet_io.data.cache_filling
import alexnet_io.data.cache_lock
from alexnet_io.data.cache import PreparedImages, default_cache_dir, prepare_images
from alexnet_io.data.cache_filling import Filling
from alexnet_io.data.decoding import Resizing, prepare, prepare_first
from alexnet_io.data.sources.files import EncodedImages, files_on_disk, image_names
from alexnet_io.errors import UserError

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

    def watched(data: bytes, name: str, resizing: Resizing) -> tuple[np.ndarray, bool]:
        names.append(name)
        return prepare_first(data, name, resizing)

    monkeypatch.setattr("alexnet_io.data.sources.files.prepare_first", watched)
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


def flip(path: Path, place: int, bit: int = 1) -> None:
    """Changes one bit of the byte at `place`, and no time of change."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def damage(folder: Path, how: str) -> None:
    if how == "index":
        (folder / "index.json").unlink()
    elif how == "not json":
        (folder / "index.json").write_bytes(b"\xff\x00{")
    elif how == "lies":
        text = (folder / "index.json").read_text()
        (folder / "index.json").write_text(text.replace('"bad": []', '"bad": [[3, "gone"]]'))
        assert (folder / "index.json").read_text() != text
    elif how == "short":
        os.truncate(folder / "images.npy", 300)
    elif how == "long":
        with open(folder / "images.npy", "ab") as file:
            file.write(b"\0")
    elif how == "header":
        with open(folder / "images.npy", "r+b") as file:
            file.write(b"not an array")
    elif how == "checksums":
        (folder / "checksums.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '|O'")
    elif how == "a checksum":
        flip(folder / "checksums.npy", -1)
    elif how == "gone":
        (folder / "images.npy").unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize(
    ("how", "file"),
    [
        ("index", "index.json"),
        ("not json", "index.json"),
        ("lies", "index.json"),
        ("empty", "index.json"),
        ("short", "images.npy"),
        ("long", "images.npy"),
        ("header", "images.npy"),
        ("gone", "images.npy"),
        ("checksums", "checksums.npy"),
        ("a checksum", "checksums.npy"),
    ],
)
def test_a_damaged_cache_is_made_again_and_that_is_said_in_a_line(root, decoded, capsys, how, file):
    first = filled(root)
    expected, folder = np.array(first.images), first.folder
    assert capsys.readouterr().err == ""
    del first
    damage(folder, how)
    again = filled(root)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: the prepared images in {folder} are damaged ({file}: ")
    assert line.endswith("): preparing them again")
    assert len(decoded) == 24
    np.testing.assert_array_equal(again.images, expected)
    filled(root)
    assert len(decoded) == 24 and capsys.readouterr().err == ""


@pytest.mark.parametrize("row", [0, 11])
def test_a_flipped_bit_in_the_pixels_is_found_and_mended(root, decoded, capsys, row):
    folder = filled(root).folder
    flip(folder / "images.npy", (row - 12) * 6 * 6 * 3)
    names = listed(root).names
    expected = np.stack([prepare((root / name).read_bytes(), name, SIZE) for name in names])
    cache = filled(root)
    for _ in range(2):  # the second time as it was put back
        rows = np.arange(24) % 12  # as a short last batch is filled up
        np.testing.assert_array_equal(cache.read(rows), expected[rows])
    assert decoded[12:] == [names[row]]
    said = f"warning: the prepared image of {names[row]} in {folder} was damaged: it was decoded again\n"
    assert capsys.readouterr().err == said
    np.testing.assert_array_equal(filled(root).images, expected)


def test_every_byte_of_a_cache_is_vouched_for(root, capsys):
    """Wherever a bit flips, the images come out right, and nothing raises."""
    folder = filled(root).folder
    names = listed(root).names
    expected = np.stack([prepare((root / name).read_bytes(), name, SIZE) for name in names])
    for file in ("index.json", "checksums.npy", "images.npy"):
        for place in range(0, (folder / file).stat().st_size, 37):
            flip(folder / file, place, 1 << place % 8)
            cache = filled(root)
            np.testing.assert_array_equal(cache.read(np.arange(12)), expected)
            assert cache.bad == {} and cache.several == ()
    assert "damaged" in capsys.readouterr().err


def test_a_damaged_image_whose_file_changed_too_is_no_image(root):
    files = listed(root)
    cache = prepare_images(files, SIZE, root.parent / "cache")
    flip(cache.folder / "images.npy", -1)
    (root / "b" / "004.png").write_bytes(encoded(solid((9, 9, 9))))
    with pytest.raises(
        UserError, match=r"image of b/004\.png in .* is damaged, and can't be made again: its file isn't"
    ):
        cache.read(np.arange(12))
    again = prepare_images(files, SIZE, root.parent / "cache")  # as "start again" says
    np.testing.assert_array_equal(again.read(np.array([11]))[0], solid((9, 9, 9), 6, 6))


def test_a_damaged_image_whose_file_is_gone(root):
    cache = filled(root)
    flip(cache.folder / "images.npy", -1)
    (root / "b" / "004.png").unlink()
    with pytest.raises(UserError, match=r"can't be made again: b/004\.png: cannot be read: No such file.*Start again"):
        cache.read(np.array([11]))


def test_a_damaged_image_in_a_cache_that_cannot_be_written(root, monkeypatch, capsys):
    cache = filled(root)
    flip(cache.folder / "images.npy", -1)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("alexnet_io.data.cache.write_row", refuse)
    for _ in range(2):
        expected = prepare((root / "b" / "004.png").read_bytes(), "", SIZE)
        np.testing.assert_array_equal(cache.read(np.array([11]))[0], expected)
    assert capsys.readouterr().err.count("couldn't be put back: Permission denied") == 2


def test_images_are_checked_when_they_are_first_read(root, monkeypatch):
    cache, sums = filled(root), []
    watched = SimpleNamespace(crc32=lambda data: sums.append(1) or zlib.crc32(data))
    monkeypatch.setattr("alexnet_io.data.cache.zlib", watched)
    for _ in range(3):
        cache.read(np.array([0, 3, 5]))
    assert len(sums) == 3 and cache.read(np.array([], int)).shape == (0, 6, 6, 3)


def test_frames_that_are_left_out_are_remembered(root, decoded):
    frames = [Image.fromarray(solid(color)) for color in ((200, 0, 0), (0, 0, 200))]
    for name, kind in (("a/anim.gif", "GIF"), ("b/pages.tiff", "TIFF")):
        (root / name).write_bytes(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    for _ in range(2):
        assert [listed(root).names[number] for number in filled(root).several] == ["a/anim.gif", "b/pages.tiff"]
    assert len(decoded) == 14
    np.testing.assert_array_equal(filled(root).read(np.array([7]))[0], solid((200, 0, 0), 6, 6))


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
    assert cache.read(np.arange(12))[:, 0, 0, 0].tolist() == list(range(12))


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

    def failing(self, number, row):
        if len(decoded) > 5:
            raise Interruption
        real(self, number, row)

    with monkeypatch.context() as patch:
        patch.setattr(Filling, "write", failing)
        with pytest.raises(Interruption):
            filled(root, threads=1)
    done = len(decoded)
    assert done == 6 and not list((root.parent / "cache").glob("images-*[0-9a-f]"))
    cache = filled(root)
    assert len(decoded) == done + 12 - 5  # five rows were kept
    np.testing.assert_array_equal(cache.images[:, 0, 0, 0], np.arange(12))


@pytest.mark.parametrize("name", ["images.npy", "done.bin"])
@pytest.mark.parametrize("damage", ["short", "gone", "random", "flipped"])
def test_a_torn_filling_goes_on_or_starts_anew(root, decoded, monkeypatch, name, damage):
    """Whatever happened to it, the images come out right."""

    def interrupted(self):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(Filling, "finish", interrupted)
        with pytest.raises(Interruption):
            filled(root)
    (partial,) = (root.parent / "cache").glob("*.partial")
    victim = partial / name
    if damage == "short":
        os.truncate(victim, victim.stat().st_size - 1)
    elif damage == "gone":
        victim.unlink()
    elif damage == "flipped":
        flip(victim, -20)
    else:
        victim.write_bytes(os.urandom(100))
    cache = filled(root)
    expected = [prepare((root / image).read_bytes(), image, SIZE) for image in listed(root).names]
    np.testing.assert_array_equal(cache.read(np.arange(12)), np.stack(expected))
    assert len(decoded) == (13 if damage == "flipped" and name == "images.npy" else 24)


FILL = """
import sys, time
from pathlib import Path
from alexnet_io.data import cache, cache_filling
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.sources.files import EncodedImages, files_on_disk, image_names

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
                states = [np.fromfile(path, np.uint8)[:312] for path in root.parent.glob("cache/*.partial/done.bin")]
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
    monkeypatch.setattr(alexnet_io.data.cache_lock, "_POLL_S", 0.01)
    cache = filled(root)
    shutil.move(cache.folder, root.parent / "kept")
    heard, opened = [], []
    with alexnet_io.data.cache_lock.cache_lock(cache.folder, lambda: None):
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
    monkeypatch.setattr(alexnet_io.data.cache_lock, "_POLL_S", 0.01)
    monkeypatch.setattr(alexnet_io.data.cache_lock, "STALL_LIMIT_S", 0.1)
    cache = filled(root)
    shutil.rmtree(cache.folder)
    with (
        alexnet_io.data.cache_lock.cache_lock(cache.folder, lambda: None),
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
    monkeypatch.setattr(alexnet_io.data.cache_filling, "_REPORT_EVERY_S", 0.001)
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
    monkeypatch.setattr(alexnet_io.data.cache_filling, "STALL_LIMIT_S", 0.3)
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
        patch.setattr(alexnet_io.data.cache_filling.os, "open", full)
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
