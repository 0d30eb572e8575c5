"""Data sets that tensorflow-datasets prepared earlier, read without TensorFlow and without a network.

The package is imported for these alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable, warn
from alexnet_io.data.cache import PreparedImages
from alexnet_io.data.sources.dataset import DataSet, digest
from alexnet_io.data.sources.files import EncodedImages, stamp
from alexnet_io.data.sources.prepared import Listing, Preparing, describe, held_out, prepared_split
from alexnet_io.errors import UserError
from alexnet_io.files.atomic_file import write_bytes

TEST_SPLITS = ("test", "validation")


def tfds_dirs(data_dir: Path) -> list[Path]:
    """Where prepared data may lie: `data_dir`, then where tfds itself would put them."""
    return [data_dir, Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")]


def find_prepared(name: str, data_dirs: Sequence[Path]) -> Path | None:
    """The folder of `name` (NAME, NAME/CONFIG, either with :VERSION), of the highest version there is.

    Without CONFIG, a data set prepared in exactly one configuration is found too.
    """
    name, _, version = name.partition(":")
    for data_dir in data_dirs:
        base = data_dir.expanduser() / name
        for pattern in ("*", "*/*"):
            found = [
                info.parent
                for info in base.glob(f"{pattern}/dataset_info.json")
                if (info.parent / "features.json").is_file()
                and re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
                and version in ("", info.parent.name)
            ]
            if found and len({folder.parent for folder in found}) == 1:
                return max(found, key=lambda folder: [int(number) for number in folder.name.split(".")])
    return None


def open_tfds(name: str, data_dirs: Sequence[Path], preparing: Preparing, holdout: float | None = None) -> DataSet:
    """Opens a prepared data set with one image and one class label in each example.

    Testing uses its `test` split, else `validation`, else the share `holdout` of `train`.

    Raises:
        UserError: tfds is missing, or nothing is prepared, or not in a form that can be read at random (the
            command that prepares it is given), or it is not for classification.
    """
    spec = f"tfds:{name}"
    folder = find_prepared(name, data_dirs)
    if folder is None:
        raise UserError(_how_to_prepare(name, data_dirs, "is not prepared"))
    builder, sources = _open_builder(name, folder, data_dirs)
    image_key, label_key, class_names = _keys(builder.info, spec)
    tests = [split for split in TEST_SPLITS if split in builder.info.splits]
    if "train" not in builder.info.splits or not (tests or holdout):
        raise UserError(
            f"{spec} has the splits {', '.join(builder.info.splits)}; needed are train and one of "
            f"{', '.join(TEST_SPLITS)}, or train and --holdout 0.1"
        )
    if tests and holdout:
        raise UserError(f"{spec} has a {tests[0]} split, so nothing is left for --holdout: leave it out")
    opened, notes = {}, []
    for split in ["train", *tests[:1]]:
        source = sources(split, image_key)
        files = _encoded(folder, split, source, image_key)
        prepared = preparing(files)
        labels = _labels(prepared, source, label_key)
        notes += describe(Listing(list(class_names), labels, files, {}), prepared)
        opened[split] = (files.names, labels, prepared, prepared.good)
    if tests:
        splits = [prepared_split(role, *opened[split]) for role, split in (("train", "train"), ("test", tests[0]))]
    else:
        names, labels, prepared, good = opened["train"]
        held, more = held_out([names[int(row)] for row in good], labels[good], holdout or 0.1)
        notes += more
        splits = [
            prepared_split(role, names, labels, prepared, good[part])
            for role, part in (("train", ~held), ("test", held))
        ]
    return DataSet(spec, class_names, splits[0], splits[1], tuple(notes))


def _open_builder(name: str, folder: Path, data_dirs: Sequence[Path]) -> tuple[Any, Any]:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError("reading tfds data needs tensorflow-datasets: pip install 'jax-alexnet[tfds]'") from None
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"{printable(folder)} is damaged ({error}): prepare it again") from error

    def source(split: str, image_key: str) -> Any:
        try:
            decoders: Any = {image_key: tfds.decode.SkipDecoding()}
            return builder.as_data_source(split, decoders=decoders)  # pyright: ignore[reportCallIssue]
        except NotImplementedError:
            raise UserError(
                _how_to_prepare(
                    name, data_dirs, f"is prepared as {builder.info.file_format}, which has no random access"
                )
            ) from None
        except ImportError as error:
            raise UserError(f"reading {name} needs one more package ({error}): pip install array-record") from None

    return builder, source


def _keys(info: Any, spec: str) -> tuple[str, str, tuple[str, ...]]:
    """The features that hold the image and the label, and the class names."""
    import tensorflow_datasets as tfds

    def of_kind(kind: type) -> list[str]:
        keys = [key for key, feature in info.features.items() if isinstance(feature, kind)]
        return [key for key in keys if key in (info.supervised_keys or ())] or keys

    images, labels = of_kind(tfds.features.Image), of_kind(tfds.features.ClassLabel)
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{spec} is not an image classification data set with one image and one label: it has the features "
            f"{', '.join(sorted(info.features))}"
        )
    return images[0], labels[0], tuple(info.features[labels[0]].names)


def _encoded(folder: Path, split: str, source: Any, image_key: str) -> EncodedImages:
    names = [f"{split}-{place:07d}" for place in range(len(source))]
    stamps = [stamp(path.name, path.stat()) for path in sorted(folder.iterdir())]
    root = str(folder.resolve())
    return EncodedImages(
        names,
        [0] * len(names),
        lambda place: source[place][image_key],
        digest(root, split, *stamps),
        f"{root}, {split}",
    )


def _labels(prepared: PreparedImages, source: Any, label_key: str) -> np.ndarray:
    """int64 (N,): kept beside the cache, since tfds has no way to them but through every example."""
    kept = prepared.folder / "labels.npz"
    try:
        content = kept.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:  # checks the sums that are in it
            labels = stored["labels"]
        if labels.shape == (len(source),) and labels.dtype == np.int64:
            return labels
        raise ValueError("they are of other images")
    except FileNotFoundError:
        pass
    except Exception as error:  # zipfile and NumPy raise nearly anything on what they did not write
        warn(f"the labels in {printable(kept)} are damaged ({error or type(error).__name__}): reading them again")
    labels = np.array([int(source[place][label_key]) for place in range(len(source))], np.int64)
    file = io.BytesIO()
    np.savez(file, labels=labels)
    with contextlib.suppress(UserError):  # a read-only cache: read again next time
        write_bytes(kept, file.getvalue())
    return labels


def _how_to_prepare(name: str, data_dirs: Sequence[Path], problem: str) -> str:
    plain, _, version = name.partition(":")
    return (
        f"tfds:{name} {problem} in {' or '.join(printable(folder) for folder in data_dirs)}, and nothing is downloaded "
        f"unasked. Prepare it with: pip install 'jax-alexnet[tfds]' && tfds build {plain}"
        f"{':' + version if version else ''} --data_dir {printable(data_dirs[0])} --file_format array_record"
    )
