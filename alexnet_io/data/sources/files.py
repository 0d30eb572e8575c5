"""Images before they have their one size: a listing that can be read by number, and its fingerprint."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import ImageError, Resizing, prepare_first, resize
from alexnet_io.data.image_types import EXTENSIONS
from alexnet_io.data.sources.dataset import digest


class Row(NamedTuple):
    """One image as the cache keeps it.

    Attributes:
        pixels: uint8 (height, width, 3).
        checksum: 32 bits, of the image as its source has it: equal ones have equal ones.
        several: whether its file holds more frames or pages, which are left out.
    """

    pixels: np.ndarray
    checksum: int
    several: bool = False


@dataclass(frozen=True)
class EncodedImages:
    """Undecoded images.

    Attributes:
        names: one for each image, for people: the path inside the data folder.
        sizes: bytes of each.
        read: gives the bytes of image number i; called from several threads.
        fingerprint: changes when a file is added, removed, replaced or touched.
        source: where they come from, for people; the same when files in it changed. Empty where nobody could tell.
    """

    names: Sequence[str]
    sizes: Sequence[int]
    read: Callable[[int], bytes]
    fingerprint: str
    source: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, number: int, resizing: Resizing) -> Row:
        """Image `number` decoded and resized.

        Raises:
            ImageError: it can't be read or decoded.
        """
        name = printable(self.names[number])
        try:
            data = self.read(number)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
        pixels, several = prepare_first(data, name, resizing)
        return Row(pixels, zlib.crc32(data), several)


@dataclass(frozen=True)
class DecodedImages:
    """Images in memory.

    Attributes:
        names: one for each.
        images: uint8 (N, height, width, 3).
        fingerprint: changes with the images.
        source: as of `EncodedImages`.
    """

    names: Sequence[str]
    images: np.ndarray
    fingerprint: str
    source: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, number: int, resizing: Resizing) -> Row:
        """Image `number` resized."""
        return Row(resize(self.images[number], resizing, self.names[number]), self.checksum(number))

    def checksum(self, number: int) -> int:
        """Of the bytes of image `number` as it is."""
        return zlib.crc32(np.ascontiguousarray(self.images[number]).data)


Images = EncodedImages | DecodedImages


def files_on_disk(root: Path, names: Sequence[str]) -> EncodedImages:
    """The files `root / name`, fingerprinted by `stamp`.

    Raises:
        OSError: a file vanished since it was listed.
    """
    stats = [os.stat(os.path.join(root, name)) for name in names]
    stamps = (stamp(name, stat) for name, stat in zip(names, stats, strict=True))

    def read(index: int) -> bytes:
        with open(os.path.join(root, names[index]), "rb", buffering=0) as file:
            return file.readall()

    fingerprint = digest(str(root.resolve()), *stamps)
    return EncodedImages(names, [stat.st_size for stat in stats], read, fingerprint, str(root.resolve()))


def stamp(name: str, stat: os.stat_result) -> str:
    """What changes when the file `name` is replaced or written to, whatever size and time of change it is given.

    The time of change can be set back, as `cp -p` and archives do; the inode's own time can't, and a file that took
    another's place by renaming has another inode.
    """
    return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}"


def is_empty(folder: Path) -> bool:
    """Whether nothing visible lies in `folder`."""
    with os.scandir(folder) as entries:
        return all(entry.name.startswith(".") for entry in entries)


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in `folder`, sorted by code point."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_names(folder: Path, ignored: dict[str, int] | None = None) -> Iterator[str]:
    """Paths, relative to `folder`, of the images in it and below, in the order of torchvision's `ImageFolder`.

    Hidden files and folders are passed over, links are followed, once. `ignored` counts the files passed over
    because of their extension.
    """
    seen: set[str] = set()
    walk: list[tuple[str, list[str]]] = []
    for parent, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder that was already walked
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        walk.append((parent, files))
    for parent, files in sorted(walk):
        for name in sorted(files):
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if extension in EXTENSIONS:
                yield os.path.relpath(os.path.join(parent, name), folder)
            elif ignored is not None:
                ignored[extension] = ignored.get(extension, 0) + 1
