"""The cache directory: what lies in it, what replaces what, what is removed and what never is."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_files import encoded, solid, write_folder

import jax_alexnet.cache
from alexnet_io.data.cache import PreparedImages, prepare_images
from alexnet_io.data.cache_filling import Filling
from alexnet_io.data.cache_folders import entries, remove
from alexnet_io.data.cache_lock import cache_lock, unused
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.sources.files import files_on_disk, image_names
from alexnet_io.errors import UserError

SIZE = Resizing(6, 6, 8)


@pytest.fixture
def root(tmp_path) -> Path:
    write_folder(tmp_path / "images", {"a": 3, "b": 2})
    return tmp_path / "images"


def filled(root: Path, size: Resizing = SIZE) -> PreparedImages:
    return prepare_images(files_on_disk(root, list(image_names(root))), size, root.parent / "cache")


def kept(root: Path) -> list[Path]:
    return sorted(path for path in (root.parent / "cache").iterdir() if path.is_dir())


def touch(root: Path) -> None:
    path = root / "a" / "000.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


# Replaced


def test_a_newer_cache_of_the_same_folder_replaces_the_older(root):
    old = filled(root).folder
    touch(root)
    new = filled(root).folder
    assert new != old and kept(root) == [new]
    assert not old.with_name(old.name + ".lock").exists()


def test_other_folders_and_other_sizes_stay(root, tmp_path):
    other = tmp_path / "others"
    shutil.copytree(root, other)
    stay = [filled(other).folder, filled(root, Resizing(5, 5)).folder]
    old = filled(root).folder
    touch(root)
    stay.append(filled(root).folder)
    assert kept(root) == sorted(stay) and old not in stay


def test_what_a_run_still_reads_stays_until_it_ends(root):
    cache = filled(root)
    touch(root)
    new = filled(root).folder
    assert kept(root) == sorted([cache.folder, new])
    assert cache.read(cache.good).shape == (5, 6, 6, 3)
    old = cache.folder
    del cache
    assert remove(old) and kept(root) == [new]


def interrupt(root: Path, monkeypatch) -> Path:
    """Leaves an unfinished cache."""

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Filling, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            filled(root)
    (partial,) = (root.parent / "cache").glob("*.partial")
    return partial


def test_an_unfinished_one_of_before_goes_too(root, monkeypatch):
    interrupt(root, monkeypatch)
    touch(root)
    new = filled(root).folder
    assert kept(root) == [new]


def test_nothing_is_removed_before_the_new_one_is_whole(root, monkeypatch):
    old = filled(root).folder
    touch(root)
    partial = interrupt(root, monkeypatch)
    assert kept(root) == sorted([old, partial])


# In use

HOLD = """
import sys
from pathlib import Path
from alexnet_io.data import cache
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.sources.files import files_on_disk, image_names

root = Path(sys.argv[1])
held = cache.prepare_images(files_on_disk(root, list(image_names(root))), Resizing(6, 6, 8), root.parent / "cache")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_in_use_by_another_process_is_never_removed(root, capsys, monkeypatch):
    folder = filled(root).folder
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert not remove(folder) and kept(root) == [folder]
        assert run(monkeypatch, root, "--clear") == 0
        assert "in use: " in capsys.readouterr().out and kept(root) == [folder]
        process.kill()
    assert remove(folder) and kept(root) == []


def test_one_that_is_being_filled_is_never_removed(root, monkeypatch):
    partial = interrupt(root, monkeypatch)
    with cache_lock(partial.with_suffix(""), lambda: None):
        assert not remove(partial) and partial.exists()
    assert remove(partial) and list((root.parent / "cache").iterdir()) == []


def test_a_process_that_waited_for_a_lock_that_was_removed_takes_a_new_one(tmp_path):
    """Otherwise two of them could hold the lock of one folder, each on a file of its own."""
    waited = []
    with contextlib.ExitStack() as first:
        assert first.enter_context(unused(tmp_path / "folder.lock", create=True))

        def removed() -> None:
            waited.append(True)
            if len(waited) == 1:
                (tmp_path / "folder.lock").unlink()
                first.close()

        with cache_lock(tmp_path / "folder", removed), unused(tmp_path / "folder.lock") as free:
            assert waited and not free


def test_one_that_is_removed_while_it_is_opened_is_prepared_again(root, monkeypatch):
    folder = filled(root).folder
    real, gone = os.path.samestat, []

    def slow(first, second):
        if not gone:
            gone.append(shutil.move(folder, root.parent / "elsewhere"))
            return False
        return real(first, second)

    monkeypatch.setattr(os.path, "samestat", slow)
    assert filled(root).folder == folder and gone


# Listed and cleared


def unused_for(folder: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(folder, (then, then))


def run(monkeypatch, root: Path, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cache", "--cache-dir", str(root.parent / "cache"), *words])
    return jax_alexnet.cache.main()


WORDS = "size images pixels unused for source"


def test_the_list_has_size_source_and_age(root, monkeypatch, capsys):
    folder = filled(root).folder
    size = sum(path.stat().st_size for path in folder.iterdir())
    unused_for(folder, 3)
    for words in ((), ("--list",)):
        assert run(monkeypatch, root, *words) == 0
        where, head, line, total = capsys.readouterr().out.splitlines()
        assert str(root.parent / "cache") in where and " ".join(head.split()) == WORDS
        assert line.split() == [*f"{size / 1000:.3g} kB 5 6x6 3.0 days".split(), str(root)]
        assert total.split()[:4] == [*f"{size / 1000:.3g} kB".split(), "in", "all;"]


def test_opening_is_using(root):
    folder = filled(root).folder
    unused_for(folder, 3)
    filled(root)
    (entry,) = entries(folder.parent)
    assert entry.days_since_use() < 0.1


def test_unfinished_damaged_and_foreign_folders_are_listed_as_what_they_are(root, monkeypatch, capsys):
    cache = root.parent / "cache"
    interrupt(root, monkeypatch)
    (cache / f"images-{'0' * 32}").mkdir()
    (cache / f"images-{'1' * 32}").mkdir()
    (cache / f"images-{'1' * 32}" / "index.json").write_text('{"format": 1, "shape": [3, 6, 6, 3], "bad": []}')
    (cache / "not ours").mkdir()
    (cache / "images-of-my-dog").mkdir()
    assert run(monkeypatch, root) == 0
    out = capsys.readouterr().out
    assert f"{root} (unfinished)" in out and out.count("unknown") == 2 and "dog" not in out and "ours" not in out
    assert run(monkeypatch, root, "--clear") == 0
    assert [path.name for path in kept(root)] == ["images-of-my-dog", "not ours"]


def test_clear_removes_all_or_what_is_old(root, monkeypatch, capsys):
    old, new = filled(root).folder, filled(root, Resizing(5, 5)).folder
    unused_for(old, 30)
    assert run(monkeypatch, root, "--clear", "--older-than", "31") == 0 and kept(root) == sorted([old, new])
    assert run(monkeypatch, root, "--clear", "--older-than", "29") == 0 and kept(root) == [new]
    assert run(monkeypatch, root, "--clear") == 0
    assert list((root.parent / "cache").iterdir()) == [] and (root / "a" / "000.png").exists()
    assert capsys.readouterr().out.count(f": {root}\n") == 2


def test_a_removal_that_was_cut_short_is_completed(root, monkeypatch):
    folder = filled(root).folder
    folder.rename(folder.with_name(folder.name + ".removed"))
    assert run(monkeypatch, root, "--clear") == 0 and list(folder.parent.iterdir()) == []


def test_an_empty_and_a_missing_directory(root, monkeypatch, capsys):
    for _ in range(2):
        assert run(monkeypatch, root) == run(monkeypatch, root, "--clear") == 0
        assert "nothing is kept in" in capsys.readouterr().out
        (root.parent / "cache").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--list", "--clear"), "--list and --clear exclude each other"),
        (("--older-than", "3"), "--older-than goes with --clear"),
    ],
)
def test_flags_that_do_not_go_together(root, monkeypatch, words, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, root, *words)


def test_a_cache_dir_that_is_a_file(root, monkeypatch):
    (root.parent / "cache").write_text("")
    with pytest.raises(UserError, match=r"cache: Not a directory: check --cache-dir"):
        run(monkeypatch, root)


def test_no_framework_is_loaded(root):
    filled(root)
    code = (
        "import sys; from jax_alexnet import cache; "
        f"sys.argv = ['cache', '--cache-dir', {str(root.parent / 'cache')!r}]; cache.main(); "
        "print(sorted({'jax', 'flax', 'torch', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_files_of_one_size_and_time_that_took_each_others_place_are_told_apart(root):
    """As do renaming and writing with the time of change set back."""
    first, second = root / "a" / "000.png", root / "a" / "001.png"
    for path in (first, second):
        path.write_bytes(encoded(solid((1 + (path == second), 0, 0)), "BMP"))
        os.utime(path, ns=(10**18, 10**18))
    assert first.stat().st_size == second.stat().st_size
    assert filled(root).images[:2, 0, 0, 0].tolist() == [1, 2]
    for old, new in ((first, "swap"), (second, first), (root / "a" / "swap", second)):
        old.rename(root / "a" / new)
    assert [path.stat().st_mtime_ns for path in (first, second)] == [10**18] * 2
    assert filled(root).images[:2, 0, 0, 0].tolist() == [2, 1]
