"""Prepared tensorflow-datasets, written here without TensorFlow, read without it and without a network."""

import io
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, solid

from alexnet_io.data.sources import open_source
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.tfds_prepared import find_prepared
from alexnet_io.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


def make(root: Path, splits: dict[str, int], name: str = "tiny", extra: bool = False, labels: int = 3) -> Path:
    """Prepares `splits[split]` images, image i of value i and label i mod `labels`."""

    def examples(count: int):
        for number in range(count):
            example = {"image": io.BytesIO(encoded(solid((number, 7, 9)))), "label": number % labels}
            yield number, {**example, "other": example["label"]} if extra else example

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"][:labels]),
            }
            if extra:
                features["other"] = tfds.features.ClassLabel(num_classes=labels)
            supervised = None if extra else ("image", "label")
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=supervised
            )

        def _split_generators(self, dl_manager):
            return {split: examples(count) for split, count in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Tiny.name = name
    builder = Tiny(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    return root / name / "1.2.0"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "tfds"


def opened(name: str, root: Path, **options) -> DataSet:
    return open_source(f"tfds:{name}", data_dir=root, cache_dir=root.parent / "cache", image_size=8, **options)


def offline(monkeypatch) -> None:
    def refuse(*_, **__):
        raise OSError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_prepared(split, count: int) -> None:
    """All pictures of a split as `make` wrote them, each with its own label."""
    values = split.read(np.arange(len(split)))[:, 0, 0, 0]
    assert sorted(values.tolist()) == list(range(count))  # tfds shuffles when it prepares
    assert split.labels.tolist() == [value % 3 for value in values]


@pytest.mark.parametrize("test", ["test", "validation"])
def test_prepared_data_are_read_offline_without_tensorflow(root, monkeypatch, test):
    make(root, {"train": 9, test: 4})
    offline(monkeypatch)
    data = opened("tiny", root)
    assert data.class_names == ("ant", "bee", "cow")
    assert_prepared(data.train, 9)
    assert_prepared(data.test, 4)
    again = opened("tiny", root)  # labels and images from the cache
    np.testing.assert_array_equal(again.train.labels, data.train.labels)
    assert "tensorflow" not in sys.modules


def test_damaged_labels_in_the_cache_are_read_again(root, capsys):
    make(root, {"train": 9, "test": 4})
    opened("tiny", root)
    for kept in (root.parent / "cache").glob("*/labels.npz"):
        content = bytearray(kept.read_bytes())
        content[content.index(b"NUMPY") + 130] ^= 1  # in the first label
        kept.write_bytes(content)
    data = opened("tiny", root)
    assert_prepared(data.train, 9)
    assert_prepared(data.test, 4)
    assert capsys.readouterr().err.count("labels.npz are damaged (Bad CRC-32") == 2


def test_no_framework_is_imported(root):
    make(root, {"train": 6, "test": 3})
    code = (
        "import sys; from alexnet_io.data.sources import open_source\n"
        f"open_source('tfds:tiny', data_dir={str(root)!r}, cache_dir={str(root / 'cache')!r}, image_size=8)\n"
        "print([m for m in ('jax', 'torch', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_tfds_own_directory_is_looked_into(root, tmp_path):
    make(tmp_path / "elsewhere", {"train": 6, "test": 3})
    assert_prepared(opened("tiny", root).train, 6)


def test_holdout_without_a_test_split(root):
    make(root, {"train": 30})
    data = opened("tiny", root, holdout=0.2)
    assert (len(data.train), len(data.test)) == (24, 6)
    assert set(data.train.names).isdisjoint(data.test.names)
    with pytest.raises(UserError, match=r"has the splits train; needed are train and one of test, validation"):
        opened("tiny", root)


def test_missing_data_say_how_to_prepare_them(root, monkeypatch):
    offline(monkeypatch)
    command = r"tfds build mnist --data_dir .*/tfds --file_format array_record"
    with pytest.raises(UserError, match=rf"is not prepared in .*/tfds or .*/elsewhere, and nothing is .*{command}"):
        opened("mnist", root)


def test_data_without_random_access_say_how_to_prepare_them(root):
    folder = make(root, {"train": 3, "test": 3})
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match=r"no random access.*--file_format array_record"):
        opened("tiny", root)


def test_data_that_are_not_for_classification(root):
    make(root, {"train": 3, "test": 3}, extra=True)
    with pytest.raises(UserError, match=r"not an image classification data set .*image, label, other"):
        opened("tiny", root)


def test_one_class(root):
    make(root, {"train": 3, "test": 3}, labels=1)
    with pytest.raises(UserError, match=r"only one class \(ant\)"):
        opened("tiny", root)


def test_a_damaged_description(root):
    folder = make(root, {"train": 3, "test": 3})
    (folder / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged .*prepare it again"):
        opened("tiny", root)


def test_the_highest_version_or_the_one_asked_for(root):
    folder = make(root, {"train": 3, "test": 3})
    for version in ("1.10.0", "1.9.0"):
        shutil.copytree(folder, folder.with_name(version))
    assert find_prepared("tiny", [root]) == folder.with_name("1.10.0")
    assert find_prepared("tiny:1.9.0", [root]) == folder.with_name("1.9.0")
    assert find_prepared("tiny:2.0.0", [root]) is None


def test_configurations(root):
    folder = make(root, {"train": 3, "test": 3})
    shutil.move(folder, root / "tiny" / "small" / "1.2.0")
    assert find_prepared("tiny", [root]) == find_prepared("tiny/small", [root]) == root / "tiny" / "small" / "1.2.0"
    shutil.copytree(root / "tiny" / "small", root / "tiny" / "big")
    assert find_prepared("tiny", [root]) is None  # which one?
    assert find_prepared("tiny/big", [root]) == root / "tiny" / "big" / "1.2.0"


def test_cifar_that_tfds_prepared(root):
    make(root, {"train": 9, "test": 4}, name="cifar10")
    data = open_source("cifar10", data_dir=root, cache_dir=root.parent / "cache")
    assert data.class_names == ("ant", "bee", "cow") and data.image_shape == (32, 32, 3)
