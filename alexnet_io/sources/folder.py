"""Folders of images, one folder for each class: the layout of torchvision's `ImageFolder`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_io.cache import PreparedImages, Progress, prepare_images
from alexnet_io.decoding import EXTENSIONS, Resizing
from alexnet_io.errors import UserError
from alexnet_io.printing import printable
from alexnet_io.sources.dataset import DataSet, Split, digest
from alexnet_io.sources.files import EncodedImages, files_on_disk, image_names, subfolders

TEST_FOLDERS = ("test", "val")
_DUPLICATE_SHARE = 0.01  # CIFAR-10 itself has a few equal images in both splits


@dataclass(frozen=True)
class Preparing:
    """How a source's files are decoded and kept: the arguments of `prepare_images` that users choose."""

    resizing: Resizing
    cache_dir: Path | None = None
    threads: int | None = None
    max_bad: int = 10
    progress: Progress | None = None

    def __call__(self, files: EncodedImages) -> PreparedImages:
        """Opens or fills the cache of `files`."""
        return prepare_images(
            files,
            self.resizing,
            self.cache_dir,
            threads=self.threads,
            max_bad=self.max_bad,
            progress=self.progress,
        )


@dataclass(frozen=True)
class Listing:
    """The files of one split: `files` in order, each with its `labels` entry, 0 to len(`classes`) - 1."""

    classes: list[str]
    labels: np.ndarray
    files: EncodedImages
    ignored: dict[str, int]


def open_folder(root: Path, preparing: Preparing, holdout: float | None = None) -> DataSet:
    """Opens `root/train/CLASS/*` with `root/test` or `root/val`, or one folder of classes with `holdout`.

    Args:
        root: the folder; links are followed.
        preparing: size of the images and place of the cache.
        holdout: share of every class kept for testing where there is no test folder. Which images these are
            depends on their names alone, so that no seed ever moves a test image into training.

    Raises:
        UserError: missing or empty folders, one class, classes that differ between the splits, files that are
            in both, or too many unreadable ones.
    """
    shown, spec = printable(root), f"folder:{printable(root)}"
    if not root.is_dir():
        raise UserError(f"{shown} {'is not a folder' if root.exists() else 'does not exist'}: check the path")
    inner = subfolders(root)
    tests = [name for name in TEST_FOLDERS if name in inner]
    if holdout is None and "train" in inner and tests:
        notes = [f"testing on {tests[0]}/; {tests[1]}/ is not used"] if len(tests) > 1 else []
        return _two_folders(spec, root / "train", root / tests[0], preparing, notes)
    if holdout is None:
        where = f"{shown}/train has no test/ or val/ beside it" if "train" in inner else f"{shown} has no train/"
        raise UserError(
            f"{where}. Either lay the images out as train/CLASS/* and test/CLASS/*, or keep a share of each class "
            "for testing with --holdout 0.1"
        )
    if "train" in inner and tests:
        raise UserError(
            f"{shown} has train/ and {tests[0]}/, so nothing is left for --holdout: leave it out, or name the "
            f"folder of classes itself, folder:{shown}/train"
        )
    return _one_folder(spec, root / "train" if "train" in inner else root, preparing, holdout)


def list_classes(folder: Path) -> Listing:
    """Lists the images of every class folder in `folder`, in the order of torchvision's `ImageFolder`.

    Raises:
        UserError: there are no class folders, or one has no images.
    """
    shown, classes, ignored = printable(folder), subfolders(folder), {}
    if not classes:
        loose = any(image_names(folder))
        raise UserError(
            f"{shown} has no class folders{', though it has images' if loose else ''}: put the images of each "
            f"class into a folder of its own, {shown}/CLASS/*.jpg"
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
            f"({', '.join(EXTENSIONS)}): {_some(empty)}. Fill or remove them"
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
    notes = notes + check_apart((listings[0].files, prepared[0]), (listings[1].files, prepared[1]), spec)
    for listing, images in zip(listings, prepared, strict=True):
        notes += describe(listing, images)
    splits = [
        prepared_split(name, listing, images, images.good)
        for name, listing, images in zip(("train", "test"), listings, prepared, strict=True)
    ]
    return DataSet(spec, _names(listings[0].classes), splits[0], splits[1], tuple(notes))


def _one_folder(spec: str, folder: Path, preparing: Preparing, share: float) -> DataSet:
    if not 0 < share < 1:
        raise UserError(f"--holdout must lie between 0 and 1, for example 0.1, not {share}")
    listing = list_classes(folder)
    _require_two(spec, listing.classes)
    images = preparing(listing.files)
    good = images.good
    held, notes = held_out([listing.files.names[place] for place in good], listing.labels[good], share)
    splits = [
        prepared_split("train", listing, images, good[~held]),
        prepared_split("test", listing, images, good[held]),
    ]
    return DataSet(spec, _names(listing.classes), splits[0], splits[1], tuple(notes + describe(listing, images)))


def held_out(names: Sequence[str], labels: np.ndarray, share: float) -> tuple[np.ndarray, list[str]]:
    """Chooses the images to test on: bool (N,), and what to tell the user.

    In each class the images are ordered by a hash of their names and the first `share` of them, rounded, are
    held out, at least one staying in training. Where classes are so small that this gives none, `share` of all
    images are held out, whatever their class.
    """
    keys = np.array([hashlib.sha256(_bytes(name)).digest()[:8] for name in names]).view(">u8").ravel()
    order = np.argsort(keys, kind="stable")
    held = np.zeros(len(names), bool)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        held[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    if held.any() or len(names) < 2:
        return held, []
    held[order[: min(max(1, round(share * len(names))), len(names) - 1)]] = True
    lost = len(set(labels[held]) - set(labels[~held]))
    return held, [
        f"the classes are too small to hold out {share:g} of each: {lost} of them are only in the test split"
    ]


def prepared_split(name: str, listing: Listing, prepared: PreparedImages, rows: np.ndarray) -> Split:
    """The images in `rows` of a cache as a split."""
    images = prepared.images
    names = listing.files.names
    return Split(
        name=name,
        labels=listing.labels[rows],
        names=[names[row] for row in rows],
        image_shape=(images.shape[1], images.shape[2], 3),
        fetch=lambda places: np.take(images, rows[places], axis=0),
        fingerprint=digest(prepared.key, rows.tobytes()),
        store=prepared.folder,
    )


def check_same_classes(train: Sequence[str], test: Sequence[str], train_name: str, test_name: str) -> None:
    """Refuses splits whose class names differ.

    Raises:
        UserError: the names that only one of them has.
    """
    lines = [
        f"only in {where}: {_some([printable(name) for name in sorted(more)])}"
        for where, more in ((train_name, set(train) - set(test)), (test_name, set(test) - set(train)))
        if more
    ]
    if lines:
        raise UserError(f"the splits have different classes; {'; '.join(lines)}. Rename or move the class folders")


def check_apart(
    train: tuple[EncodedImages, PreparedImages], test: tuple[EncodedImages, PreparedImages], where: str
) -> list[str]:
    """Refuses splits that share files, byte for byte; a very small share is only noted.

    Raises:
        UserError: more than one test file in a hundred is also in the training split.
    """
    (train_files, train_images), (test_files, test_images) = train, test
    known: dict[tuple[int, int], list[int]] = {}
    wanted = {(size, int(sum_)) for size, sum_ in zip(test_files.sizes, test_images.checksums, strict=True)}
    for number, (size, sum_) in enumerate(zip(train_files.sizes, train_images.checksums, strict=True)):
        if (size, int(sum_)) in wanted and number not in train_images.bad:
            known.setdefault((size, int(sum_)), []).append(number)
    twins = []
    for number, (size, sum_) in enumerate(zip(test_files.sizes, test_images.checksums, strict=True)):
        candidates = known.get((size, int(sum_)), ()) if number not in test_images.bad else ()
        data = test_files.read(number) if candidates else b""
        twin = next((other for other in candidates if train_files.read(other) == data), None)
        if twin is not None:
            names = (printable(files.names[at]) for files, at in ((test_files, number), (train_files, twin)))
            twins.append(" = ".join(names))
    if not twins:
        return []
    found = f"{len(twins)} of {len(test_files)} test images are also in the training split (test = train): "
    if len(twins) > _DUPLICATE_SHARE * len(test_files):
        raise UserError(
            f"{where}: {found}{_some(twins)}. Figures on them would mean nothing: take them out of one"
        )
    return [found + _some(twins, 3)]


def describe(listing: Listing, prepared: PreparedImages) -> list[str]:
    """What was left out of a listing, in words."""
    notes = [f"left out, unreadable: {reason}" for _, reason in sorted(prepared.bad.items())]
    if listing.ignored:
        kinds = ", ".join(
            f"{count} {kind or 'without extension'}" for kind, count in sorted(listing.ignored.items())
        )
        notes.append(f"passed over, not images by their extension: {kinds}")
    return notes


def _require_two(spec: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:  # said before hours of decoding; DataSet would say it in the end
        raise UserError(
            f"{spec}: only one class folder ({printable(classes[0])}) was found, and telling classes apart "
            "needs two or more"
        )


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(name) for name in classes)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
