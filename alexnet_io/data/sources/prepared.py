"""Splits over prepared images, and what must hold between them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.cache import PreparedImages, Progress, prepare_images
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.sources.class_names import only_in_one, some
from alexnet_io.data.sources.dataset import DataSet, Split, digest
from alexnet_io.data.sources.files import DecodedImages, EncodedImages, Images
from alexnet_io.errors import UserError
from alexnet_io.run.machine import usable_cores

PAPER_SIZE = 256  # shorter side to 256, then the central 256x256 (section 2)
IN_MEMORY_BYTES = 2**30
_ROLES = {"train": "training", "validation": "validation", "test": "test"}
_PURPOSE = {"validation": "validate", "test": "test"}
_DUPLICATE_SHARE = 0.01  # a stray copy in a large set is worth a word, not a refusal


@dataclass(frozen=True)
class Preparing:
    """How a source's files are decoded and kept: the arguments of `prepare_images` that users choose."""

    resizing: Resizing | None = None
    cache_dir: Path | None = None
    threads: int | None = None
    max_bad: int = 10
    progress: Progress | None = None

    def __call__(self, files: Images) -> PreparedImages:
        """Opens or fills the cache of `files`; without a chosen size, at the paper's 256x256."""
        return prepare_images(
            files,
            self.resizing or Resizing(PAPER_SIZE, PAPER_SIZE, PAPER_SIZE),
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


def held_out(
    names: Sequence[str],
    labels: np.ndarray,
    share: float,
    *,
    seed: int | None = None,
    flag: str = "--holdout",
    split: str = "test",
) -> tuple[np.ndarray, list[str]]:
    """Chooses the images to test or to validate on: bool (N,), and what to tell the user.

    In each class the images are ordered by a hash of their names and the first `share` of them, rounded, are
    held out, at least one staying in training. Where classes are so small that this gives none, `share` of all
    images are held out, whatever their class.

    Args:
        names: of the images.
        labels: of the images.
        share: of them that is held out.
        seed: goes into the hashes; None for the same choice whatever the run's seed.
        flag: what asks for it on the command line.
        split: what the images become.

    Raises:
        UserError: `share` of all images is none.
    """
    if round(share * len(names)) < 1:
        raise UserError(
            f"{flag} {share:g} of {len(names)} images is none, so nothing would be left to {_PURPOSE[split]} on: "
            + (f"take at least {1 / len(names):.2g}" if len(names) > 1 else "more images are needed")
        )
    salt = b"" if seed is None else f"{seed}\0".encode()
    keys = np.array([hashlib.sha256(salt + _bytes(name)).digest()[:8] for name in names]).view(">u8").ravel()
    order = np.argsort(keys, kind="stable")
    held = np.zeros(len(names), bool)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        held[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    if held.any() or len(names) < 2:
        return held, []
    held[order[: min(round(share * len(names)), len(names) - 1)]] = True
    lost = len(set(labels[held]) - set(labels[~held]))
    small = f"the classes are too small to hold out {share:g} of each"
    return held, [f"{small}: {lost} of them are only in the {split} split"]


def prepared_split(
    name: str, names: Sequence[str], labels: np.ndarray, prepared: PreparedImages, rows: np.ndarray
) -> Split:
    """The images in `rows` of a cache as a split; `names` and `labels` are those of all its rows."""
    images = prepared.images
    return Split(
        name=name,
        labels=labels[rows],
        names=[names[int(row)] for row in rows],
        image_shape=(images.shape[1], images.shape[2], 3),
        fetch=lambda places: prepared.read(rows[places]),
        fingerprint=digest(prepared.key, rows.tobytes()),
        store=prepared.folder,
        contents=prepared.checksums[rows],
    )


def array_split(name: str, images: DecodedImages, labels: np.ndarray, preparing: Preparing) -> Split:
    """A split of decoded images: in memory as they are or resized, in the cache above `IN_MEMORY_BYTES`."""
    resizing, pixels = preparing.resizing, images.images
    contents = np.array([images.checksum(number) for number in range(len(images))], np.uint32)
    height, width = pixels.shape[1:3] if resizing is None else (resizing.height, resizing.width)
    labels = labels.astype(np.int32)
    if resizing is not None and (height, width) != pixels.shape[1:3]:
        if len(images) * height * width * 3 > IN_MEMORY_BYTES:
            prepared = preparing(images)
            return prepared_split(name, images.names, labels, prepared, prepared.good)
        with ThreadPoolExecutor(preparing.threads or usable_cores()) as pool:
            resized = list(pool.map(lambda number: images.pixels(number, resizing).pixels, range(len(images))))
        pixels = np.stack(resized)
    fingerprint = digest(images.fingerprint, repr(resizing))
    return Split(
        name, labels, images.names, (height, width, 3), lambda places: pixels[places], fingerprint, contents=contents
    )


def check_same_classes(train: Sequence[str], test: Sequence[str], train_name: str, test_name: str) -> None:
    """Refuses splits whose class names differ.

    Raises:
        UserError: the names that only one of them has, and in what they differ where that is hard to see.
    """
    if lines := only_in_one(train, test, train_name, test_name):
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
        raise UserError(f"{where}: {found}{some(twins)}. Figures on them would mean nothing: take them out of one")
    return [found + some(twins, 3)]


def check_classes_left(listing: Listing, prepared: PreparedImages) -> None:
    """Refuses classes that have no readable image.

    Raises:
        UserError: their names.
    """
    left = set(listing.labels[prepared.good].tolist())
    lost = [printable(name) for label, name in enumerate(listing.classes) if label not in left]
    if lost:
        reasons = "\n  ".join(list(prepared.bad.values())[:10])
        raise UserError(f"no image of {some(lost)} can be read:\n  {reasons}\nReplace the images or remove the class")


def describe(listing: Listing, prepared: PreparedImages) -> list[str]:
    """What was left out of a listing, in words."""
    notes = [f"left out, unreadable: {reason}" for _, reason in sorted(prepared.bad.items())]
    if prepared.several:
        names = [printable(listing.files.names[number]) for number in prepared.several]
        notes.append(f"images with several frames or pages, of which the first is taken: {some(names, 3)}")
    if listing.ignored:
        kinds = ", ".join(f"{count} {kind or 'without extension'}" for kind, count in sorted(listing.ignored.items()))
        notes.append(f"passed over, not images by their extension: {kinds}")
    return notes


def uncovered(data: DataSet, holdout: float | None) -> list[str]:
    """What is to be said of classes of which one of the splits has no image.

    Args:
        data: the splits.
        holdout: the share of the images that became the test split; None where it was there.
    """
    notes = []
    remedy = "Add images of them" + (f", or take another share than --holdout {holdout:g}" if holdout else "")
    for split, meaning in (
        (data.test, "figures on the test images say nothing about them"),
        (data.train, "they can't be learnt"),
    ):
        counts = np.bincount(split.labels, minlength=len(data.class_names))
        lost = [printable(data.class_names[label]) for label in np.flatnonzero(counts == 0)]
        if lost:
            notes.append(
                f"warning: {len(lost)} of {len(data.class_names)} classes have no {_ROLES[split.name]} image "
                f"({some(lost, 5)}): {meaning}. {remedy}"
            )
    return notes


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
