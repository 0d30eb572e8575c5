"""Folders of images, one folder for each class: the layout of torchvision's `ImageFolder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.image_types import EXTENSIONS
from alexnet_io.data.sources.class_names import same_but_for_normalisation, some
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.files import files_on_disk, image_names, is_empty, subfolders
from alexnet_io.data.sources.prepared import (
    Listing,
    Preparing,
    check_apart,
    check_classes_left,
    check_same_classes,
    describe,
    held_out,
    prepared_split,
)
from alexnet_io.errors import UserError

TEST_FOLDERS = ("test", "val")


def open_folder(root: Path, preparing: Preparing, holdout: float | None = None, measuring: bool = False) -> DataSet:
    """Opens `root/train/CLASS/*` with `root/test` or `root/val`, or one folder of classes with `holdout`.

    Args:
        root: the folder; links are followed.
        preparing: size of the images and place of the cache.
        holdout: share of every class kept for testing where there is no test folder. Which images these are
            depends on their names alone, so that no seed ever moves a test image into training.
        measuring: nothing is learnt from the data, so that `root` may hold test images alone: `root/test/CLASS/*`,
            `root/val/CLASS/*` or `root/CLASS/*`.

    Raises:
        UserError: missing or empty folders, one class, classes that differ between the splits, files that are
            in both, or too many unreadable ones.
    """
    shown, spec = printable(root), f"folder:{printable(root)}"
    if not root.is_dir():
        raise UserError(f"{shown} {'is not a folder' if root.exists() else 'does not exist'}: check the path")
    if is_empty(root):
        raise UserError(
            f"{shown} is empty: put the images there as train/CLASS/* and test/CLASS/*, or as CLASS/* and keep a share "
            "of each class for testing with --holdout 0.1"
        )
    inner = subfolders(root)
    tests = [name for name in TEST_FOLDERS if name in inner]
    if holdout is None and "train" in inner and tests:
        notes = [f"testing on {tests[0]}/; {tests[1]}/ is not used"] if len(tests) > 1 else []
        return _two_folders(spec, root / "train", root / tests[0], preparing, notes)
    if holdout is None and measuring and "train" not in inner:
        return _test_folder(spec, root / tests[0] if tests else root, preparing)
    if holdout is None:
        where = f"{shown}/train has no test/ or val/ beside it" if "train" in inner else f"{shown} has no train/"
        raise UserError(
            f"{where}. Either lay the images out as train/CLASS/* and test/CLASS/*, or keep a share of each class "
            "for testing with --holdout 0.1"
        )
    # A class may be called train: with --holdout, only a train/ that has folders in it is a split.
    nested = "train" in inner and bool(subfolders(root / "train"))
    if nested and tests:
        raise UserError(
            f"{shown} has train/ and {tests[0]}/, so nothing is left for --holdout: leave it out, or name the "
            f"folder of classes itself, folder:{shown}/train"
        )
    return _one_folder(spec, root / "train" if nested else root, preparing, holdout)


def list_classes(folder: Path) -> Listing:
    """Lists the images of every class folder in `folder`, in the order of torchvision's `ImageFolder`.

    Raises:
        UserError: there are no class folders, one has no images, or two have what is the same name to a reader.
    """
    shown, classes, ignored = printable(folder), subfolders(folder), {}
    if not classes:
        loose = any(image_names(folder))
        found = "is empty" if is_empty(folder) else f"has no class folders{', though it has images' if loose else ''}"
        raise UserError(f"{shown} {found}: put the images of each class into a folder of its own, {shown}/CLASS/*.jpg")
    if twins := same_but_for_normalisation(classes):
        raise UserError(
            f"{shown} has class folders whose names differ in Unicode normalisation only: {some(twins, 5)}. Put the "
            "images of each class into one folder"
        )
    names: list[str] = []
    counts: list[int] = []
    for name in classes:
        found = [f"{name}/{image}" for image in image_names(folder / name, ignored)]
        names += found
        counts.append(len(found))
    empty = [printable(name) for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise UserError(
            f"{len(empty)} of {len(classes)} class folders in {shown} have no images "
            f"({', '.join(EXTENSIONS)}): {some(empty)}. Fill or remove them"
        )
    try:
        files = files_on_disk(folder, names)
    except OSError as error:
        raise UserError(f"{shown}: {printable(error.filename or '')} can't be read: {error.strerror}") from error
    return Listing(classes, np.repeat(np.arange(len(classes), dtype=np.int32), counts), files, ignored)


def _two_folders(spec: str, train: Path, test: Path, preparing: Preparing, notes: list[str]) -> DataSet:
    listings = list_classes(train), list_classes(test)
    check_same_classes(listings[0].classes, listings[1].classes, printable(train), printable(test))
    _require_two(spec, listings[0].classes)
    prepared = [preparing(listing.files) for listing in listings]
    for listing, images in zip(listings, prepared, strict=True):
        check_classes_left(listing, images)
    notes = notes + check_apart((listings[0].files, prepared[0]), (listings[1].files, prepared[1]), spec)
    for listing, images in zip(listings, prepared, strict=True):
        notes += describe(listing, images)
    splits = [
        prepared_split(name, listing.files.names, listing.labels, images, images.good)
        for name, listing, images in zip(("train", "test"), listings, prepared, strict=True)
    ]
    return DataSet(spec, _names(listings[0].classes), splits[0], splits[1], tuple(notes))


def _one_folder(spec: str, folder: Path, preparing: Preparing, share: float) -> DataSet:
    if not 0 < share < 1:
        raise UserError(f"--holdout must lie between 0 and 1, for example 0.1, not {share}")
    listing = list_classes(folder)
    _require_two(spec, listing.classes)
    images = preparing(listing.files)
    good, names = images.good, listing.files.names
    held, notes = held_out([names[int(row)] for row in good], listing.labels[good], share)
    splits = [
        prepared_split("train", names, listing.labels, images, good[~held]),
        prepared_split("test", names, listing.labels, images, good[held]),
    ]
    return DataSet(spec, _names(listing.classes), splits[0], splits[1], tuple(notes + describe(listing, images)))


def _test_folder(spec: str, folder: Path, preparing: Preparing) -> DataSet:
    """Every image of `folder` as a test image; what should be training images are the same."""
    listing = list_classes(folder)
    _require_two(spec, listing.classes)
    images = preparing(listing.files)
    check_classes_left(listing, images)
    train, test = (
        prepared_split(name, listing.files.names, listing.labels, images, images.good) for name in ("train", "test")
    )
    return DataSet(spec, _names(listing.classes), train, test, tuple(describe(listing, images)))


def _require_two(spec: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:  # said before hours of decoding; DataSet would say it in the end
        raise UserError(
            f"{spec}: only one class folder ({printable(classes[0])}) was found, and telling classes apart "
            "needs two or more"
        )


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(name) for name in classes)
