"""ImageNet as it is given out: synset folders or synset tars for training, and the validation images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources.class_names import some
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.files import EncodedImages, files_on_disk, image_names, is_empty, subfolders
from alexnet_io.data.sources.folder import list_classes
from alexnet_io.data.sources.ground_truth import validation_labels
from alexnet_io.data.sources.prepared import (
    Listing,
    Preparing,
    check_apart,
    check_classes_left,
    check_same_classes,
    describe,
    prepared_split,
)
from alexnet_io.data.sources.tar_files import images_in_tars
from alexnet_io.errors import UserError

SYNSET = re.compile(r"n\d{8}")


def open_imagenet(root: Path, preparing: Preparing) -> DataSet:
    """Opens `root/train` and `root/val`.

    `train` has a folder or an uncompressed tar file for each synset, never unpacked. `val` has synset folders, or
    all images side by side and their labels in a file that `ground_truth` knows. Labels are the places of the
    synsets in sorted order, as in torchvision and Caffe.

    Raises:
        UserError: something is missing or does not fit together.
    """
    train, val, spec = root / "train", root / "val", f"imagenet:{printable(root)}"
    for folder, content in ((root, "train/ and val/"), (train, "synset folders or tars"), (val, "validation images")):
        empty = folder == root and root.is_dir() and is_empty(root)
        if not folder.is_dir() or empty:
            found = "is empty" if empty else "does not exist"
            raise UserError(f"{printable(folder)} {found}; it should hold {content}{_packed(root)}")
    learnt = _train_listing(train)
    tested = _val_listing(root, val, learnt.classes)
    check_same_classes(learnt.classes, tested.classes, printable(train), printable(val))
    prepared = [preparing(listing.files) for listing in (learnt, tested)]
    check_classes_left(learnt, prepared[0])
    notes = check_apart((learnt.files, prepared[0]), (tested.files, prepared[1]), spec)
    notes += describe(learnt, prepared[0]) + describe(tested, prepared[1])
    return DataSet(
        spec,
        tuple(learnt.classes),
        prepared_split("train", learnt.files.names, learnt.labels, prepared[0], prepared[0].good),
        prepared_split("test", tested.files.names, tested.labels, prepared[1], prepared[1].good),
        tuple(notes),
    )


def _train_listing(train: Path) -> Listing:
    folders = subfolders(train)
    tars = sorted(path.name for path in train.glob("*.tar"))
    if folders and tars:
        raise UserError(
            f"{printable(train)} has both folders ({some(folders, 2)}) and tar files ({some(tars, 2)}): keep one kind"
        )
    _check_synsets(train, [name.removesuffix(".tar") for name in folders or tars])
    if folders:
        return list_classes(train)
    files, counts = images_in_tars(train, tars)
    empty = [name for name, count in zip(tars, counts, strict=True) if not count]
    if empty:
        raise UserError(f"no images in {some(empty)} in {printable(train)}: get them again")
    labels = np.repeat(np.arange(len(tars), dtype=np.int32), counts)
    return Listing([name.removesuffix(".tar") for name in tars], labels, files, {})


def _val_listing(root: Path, val: Path, synsets: Sequence[str]) -> Listing:
    folders = subfolders(val)
    if folders:
        _check_synsets(val, folders)
        return list_classes(val)
    ignored: dict[str, int] = {}
    names = list(image_names(val, ignored))
    if not names:
        found = "is empty" if is_empty(val) else "has no images and no synset folders"
        raise UserError(f"{printable(val)} {found}; it should hold validation images{_packed(root)}")
    files: EncodedImages = files_on_disk(val, names)
    return Listing(list(synsets), validation_labels(root, val, names, synsets), files, ignored)


def _check_synsets(folder: Path, names: Sequence[str]) -> None:
    strange = [printable(name) for name in names if not SYNSET.fullmatch(name)]
    if strange or not names:
        found = f"{some(strange)} there is not one" if strange else "nothing there is one"
        found = "it is empty" if is_empty(folder) else found
        raise UserError(
            f"{printable(folder)} should hold synsets such as n01440764 as folders or n01440764.tar, but {found}. "
            f"For other classes say folder:{printable(folder.parent)}{_packed(folder.parent)}"
        )


def _packed(root: Path) -> str:
    """How to unpack the big archives, where they lie there unopened."""
    commands = [
        f"mkdir -p {folder} && tar -xf {archive} -C {folder}"
        for archive, folder in (("ILSVRC2012_img_train.tar", "train"), ("ILSVRC2012_img_val.tar", "val"))
        if (root / archive).is_file()
    ]
    return f". Unpack what lies there first: cd {printable(root)} && {' && '.join(commands)}" if commands else ""
