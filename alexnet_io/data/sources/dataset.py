"""What every source hands over: class names and two splits of uint8 images with integer labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_io.errors import UserError


@dataclass(frozen=True)
class Split:
    """A list of labelled images, all of one size, in a fixed order; an image's place in it is its id.

    Attributes:
        name: "train", "validation" or "test".
        labels: int32 (N,), 0 to classes - 1.
        names: N sample names: paths inside the data folder, or made up.
        image_shape: (height, width, 3).
        fetch: gives uint8 (n, height, width, 3) for an int array (n,) of places; called from several threads.
        fingerprint: changes whenever the images do.
        store: where what is derived from the images may be kept, or None.
        contents: uint32 (N,), a checksum of each image as its source has it, whatever size it was brought to; None
            where `fingerprint` tells the content by itself, wherever the data lie.
    """

    name: str
    labels: np.ndarray
    names: Sequence[str]
    image_shape: tuple[int, int, int]
    fetch: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    store: Path | None = None
    contents: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads the images at `indices`, in that order: uint8 (len(indices), height, width, 3).

        Raises:
            IndexError: a place outside 0 to len(self) - 1.
        """
        places = np.asarray(indices, np.int64)
        if len(places) and (places.min() < 0 or places.max() >= len(self)):
            raise IndexError(f"{self.name} images are numbered 0 to {len(self) - 1}, not {places}")
        return self.fetch(places)

    def subset(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> Split:
        """The images at `indices`, renumbered from 0."""
        places = np.asarray(indices, np.int64)
        if len(places) and (places.min() < 0 or places.max() >= len(self)):
            raise IndexError(f"{self.name} images are numbered 0 to {len(self) - 1}, not {places}")
        fetch = self.fetch
        return dataclasses.replace(
            self,
            name=name or self.name,
            labels=self.labels[places],
            names=[self.names[place] for place in places],
            fetch=lambda wanted: fetch(places[wanted]),
            fingerprint=digest(self.fingerprint, places.tobytes()),
            contents=None if self.contents is None else self.contents[places],
        )


@dataclass(frozen=True)
class DataSet:
    """Two splits over the same classes.

    Attributes:
        spec: what `--data` said.
        class_names: the name of label 0, 1, ...; stored with the weights.
        train: images to learn from.
        test: images to be measured on.
        validation: images kept from training by which the run is steered; None where the test images steer it.
        notes: what the user should be told: files left out, choices made.
    """

    spec: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    notes: tuple[str, ...] = ()
    validation: Split | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(
                f"{self.spec}: only one class ({', '.join(self.class_names) or 'none'}) was found, and telling "
                "classes apart needs two or more. Each class is a folder of its own: PATH/train/CLASS/*.jpg"
            )
        for split in self.splits:
            if not len(split):
                raise UserError(f"{self.spec}: the {split.name} split has no images")
            check_labels(split, len(self.class_names), self.spec)

    @property
    def splits(self) -> tuple[Split, ...]:
        """All that there are."""
        return (self.train, *([self.validation] if self.validation else []), self.test)

    @property
    def steering(self) -> Split:
        """The images on which schedules and the choice of the best weights act."""
        return self.validation or self.test

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of every image."""
        return self.train.image_shape


def check_labels(split: Split, classes: int, where: str = "data") -> None:
    """Refuses labels that a network with `classes` outputs can't learn.

    Raises:
        UserError: a label below 0 or above `classes` - 1; the first one's name is given.
    """
    bad = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(bad):
        first = int(bad[0])
        raise UserError(
            f"{where}: {len(bad)} {split.name} label{'s lie' if len(bad) > 1 else ' lies'} outside 0 to "
            f"{classes - 1}; the first is {int(split.labels[first])}, of {split.names[first]}. With {classes} "
            "classes, labels must start at 0: mend the labels, or give the number of classes they need"
        )


def digest(*parts: str | bytes) -> str:
    """A short hexadecimal SHA-256 of `parts`, each kept apart from the next."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()[:32]
