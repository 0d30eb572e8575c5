"""Images inside tar files, read in place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.data.image_types import EXTENSIONS
from alexnet_io.data.sources.dataset import digest
from alexnet_io.data.sources.files import EncodedImages, stamp
from alexnet_io.errors import UserError


def images_in_tars(root: Path, tars: Sequence[str]) -> tuple[EncodedImages, list[int]]:
    """Lists the images in `root / tar` for each of `tars`, sorted by name inside each.

    Returns:
        The images, named "TAR/MEMBER", and how many each tar has.

    Raises:
        UserError: a tar file can't be read.
    """
    names: list[str] = []
    places: list[tuple[int, int, int]] = []  # number of the tar, offset, bytes
    counts: list[int] = []
    stamps: list[str] = []
    for number, tar in enumerate(tars):
        path = root / tar
        stat = path.stat()  # before it is read: what is listed below is at least as new
        found = _members(path)
        stamps.append(stamp(tar, stat))
        names += [f"{tar}/{name}" for name, _, _ in found]
        places += [(number, offset, size) for _, offset, size in found]
        counts.append(len(found))
    paths = [root / tar for tar in tars]

    def read(index: int) -> bytes:
        number, offset, size = places[index]
        with open(paths[number], "rb", buffering=0) as file:
            here = max(0, os.fstat(file.fileno()).st_size - offset)
            data = os.pread(file.fileno(), min(size, here), offset)
        if len(data) != size:
            raise OSError(f"the tar file ends after {len(data)} of {size} bytes")
        return data

    fingerprint = digest(str(root.resolve()), *stamps)
    return EncodedImages(names, [size for _, _, size in places], read, fingerprint, str(root.resolve())), counts


def _members(path: Path) -> list[tuple[str, int, int]]:
    """Name, offset and size of every image in an uncompressed tar file, sorted by name."""
    try:
        with tarfile.open(path, "r:") as archive:
            return sorted(
                (member.name.removeprefix("./"), member.offset_data, member.size)
                for member in archive
                if member.isreg() and member.size >= 0 and member.name.lower().endswith(EXTENSIONS)
            )
    except Exception as error:  # tarfile raises nearly anything on damaged files
        raise UserError(
            f"{printable(path)} is not a readable, uncompressed tar file ({error}): get it again"
        ) from error
