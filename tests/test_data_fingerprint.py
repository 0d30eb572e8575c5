"""What tells one data set from another, and what doesn't."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, solid, write_folder

from alexnet_io.data.sources import open_source
from alexnet_io.data.sources.dataset import DataSet, Split
from alexnet_io.data.sources.files import DecodedImages
from alexnet_io.data.sources.fingerprint import fingerprint
from alexnet_io.data.sources.prepared import Preparing, array_split


def opened(root: Path, **options) -> DataSet:
    return open_source(f"folder:{root}", cache_dir=root.parent / "cache", **{"image_size": 6, **options})


@pytest.fixture
def root(tmp_path) -> Path:
    write_folder(tmp_path / "set", {"train/a": 3, "train/b": 3})
    write_folder(tmp_path / "set", {"test/a": 2, "test/b": 2}, start=50)
    return tmp_path / "set"


def test_counts_and_digests_of_both_splits(root):
    facts = fingerprint(opened(root))
    assert facts["train"]["examples"] == 6 and facts["test"]["examples"] == 4 and facts["classes"] == 2
    assert facts["train"]["digest"] != facts["test"]["digest"]


def swap_classes(root: Path) -> None:
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (root / "train" / old).rename(root / "train" / new)


def replace(root: Path) -> None:
    path = root / "train" / "a" / "001.png"
    times, size = path.stat(), path.stat().st_size
    path.write_bytes(encoded(solid((91, 0, 7), 12, 14)))
    assert path.stat().st_size == size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES = {
    "classes swapped": swap_classes,
    "replaced by one of the same size and time": replace,
    "removed": lambda root: (root / "train" / "b" / "002.png").unlink(),
    "added": lambda root: (root / "train" / "b" / "new.png").write_bytes(encoded(solid((1, 2, 3)))),
    "renamed": lambda root: (root / "train" / "b" / "002.png").rename(root / "train" / "b" / "003.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_training_images_shows_there_alone(root, change):
    before = fingerprint(opened(root))
    CHANGES[change](root)
    after = fingerprint(opened(root))
    assert after["train"]["digest"] != before["train"]["digest"]
    assert after["test"] == before["test"]


def test_a_change_of_the_test_images_shows_there_alone(root):
    before = fingerprint(opened(root))
    (root / "test" / "a" / "000.png").unlink()
    after = fingerprint(opened(root))
    assert after["test"]["digest"] != before["test"]["digest"] and after["train"] == before["train"]


def test_a_class_renamed_everywhere_shows(root):
    before = fingerprint(opened(root))
    for split in ("train", "test"):
        (root / split / "b").rename(root / split / "c")
    assert fingerprint(opened(root))["test"]["digest"] != before["test"]["digest"]


def test_place_time_cache_and_size_do_not_show(root, tmp_path):
    before = fingerprint(opened(root))
    moved = tmp_path / "elsewhere" / "set"
    shutil.copytree(root, moved)
    assert fingerprint(opened(moved)) == before
    for path in moved.rglob("*.png"):
        os.utime(path, ns=(0, 12345))
    assert fingerprint(opened(moved)) == before
    shutil.rmtree(tmp_path / "cache")
    assert fingerprint(opened(root)) == before
    assert fingerprint(opened(root, image_size=9)) == before
    data = opened(root)
    assert fingerprint(data) == before  # from the cache as it was found


def test_holdout_counts(root):
    inner = root / "train"
    assert fingerprint(opened(inner, holdout=0.4)) == fingerprint(opened(inner, holdout=0.4))
    assert fingerprint(opened(inner, holdout=0.4)) != fingerprint(opened(inner, holdout=0.7))


def test_digits_and_synthetic_images():
    digits = fingerprint(open_source("digits"))
    assert digits["train"]["examples"] + digits["test"]["examples"] == 1797 and digits["classes"] == 10
    assert fingerprint(open_source("digits", image_size=9)) == digits
    made = [
        fingerprint(open_source(f"synthetic:{options}", seed=seed))
        for options, seed in (("classes=3", 0), ("classes=3", 1), ("classes=4", 0), ("classes=3,train=9", 0))
    ]
    assert len({facts["train"]["digest"] for facts in made}) == 4
    assert fingerprint(open_source("synthetic:classes=3", seed=0)) == made[0]


def test_decoded_images_in_memory_and_through_the_cache(tmp_path, monkeypatch, rng):
    pixels, labels = rng.integers(0, 256, (20, 4, 4, 3), np.uint8), np.arange(20) % 2

    def facts(images: np.ndarray, size: int | None = None) -> dict:
        from alexnet_io.data.decoding import Resizing

        preparing = Preparing(Resizing(size, size) if size else None, tmp_path)
        names = [f"train-{place}" for place in range(20)]
        split = array_split("train", DecodedImages(names, images, str(images.sum())), labels, preparing)
        return fingerprint(DataSet("made", ("a", "b"), split, split))

    before = facts(pixels)
    assert facts(pixels, 8) == before
    monkeypatch.setattr("alexnet_io.data.sources.prepared.IN_MEMORY_BYTES", 0)
    assert facts(pixels, 8) == before
    changed = pixels.copy()
    changed[7, 1, 2, 0] ^= 1
    assert facts(changed) != before and facts(changed, 8) == facts(changed)


def test_sixty_thousand_images_take_less_than_a_second():
    """A bound with much room: it takes some hundredths of one."""
    count = 60_000
    split = Split(
        "train",
        np.zeros(count, np.int32),
        [f"airplane/{place:05d}.png" for place in range(count)],
        (32, 32, 3),
        lambda places: pytest.fail("pixels were read"),
        "",
        contents=np.arange(count, dtype=np.uint32),
    )
    data = DataSet("made", ("airplane", "ship"), split, split)
    started = time.process_time()
    fingerprint(data)
    assert time.process_time() - started < 1
