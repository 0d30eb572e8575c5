"""The prepared cache: images decoded and resized once, then read through a memory map by every later epoch.

A cache is a folder `images-KEY` with `images.npy` (uint8, one row for each file), `checksums.npy` and
`index.json`. It is filled as `images-KEY.partial` and renamed when complete, so a folder without the suffix is
whole; an interrupted fill goes on where it stopped. KEY covers the listing (see `sources.files.stamp`), the resizing
and Pillow's version with those of its decoders, which may differ in the last bit.

What is damaged later is found: all but the pixels when a cache is opened, and each image's pixels when a process reads
it for the first time. A damaged folder is filled again, a damaged image is decoded again from its file; either is
said in a line. A finished cache replaces those that were made from an earlier state of the same files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable, warn
from alexnet_io.data.cache_filling import SEVERAL, Filling, fill, write_row
from alexnet_io.data.cache_folders import remove_older
from alexnet_io.data.cache_index import (
    FORMAT,
    IMAGES,
    INDEX,
    Damaged,
    Index,
    Origin,
    read_index,
    write_index,
    write_origin,
)
from alexnet_io.data.cache_lock import Lock, cache_lock, hold
from alexnet_io.data.decoding import ImageError, Resizing
from alexnet_io.data.image_types import decoders
from alexnet_io.data.sources.dataset import digest
from alexnet_io.data.sources.files import Images
from alexnet_io.errors import UserError
from alexnet_io.files.atomic_file import sync_directory
from alexnet_io.run.machine import usable_cores

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PreparedImages:
    """An opened cache.

    Attributes:
        images: uint8 (N, height, width, 3), a read-only memory map, as it lies on the disk; the rows of unreadable
            files are undefined.
        bad: number and reason of every unreadable file.
        checksums: uint32 (N,): files with equal content have equal ones.
        folder: where it lies.
        key: fingerprint of files and resizing.
        several: numbers of the files that hold more frames than the first, which was taken.
        sums: uint32 (N,), of each row of `images` as it was written; None: rows are taken as they lie there.
        files: what damaged rows are made from again.
        resizing: how.
        held: keeps the folder from being removed.
    """

    images: np.ndarray
    bad: dict[int, str]
    checksums: np.ndarray
    folder: Path
    key: str
    several: tuple[int, ...] = ()
    sums: np.ndarray | None = None
    files: Images | None = None
    resizing: Resizing | None = None
    held: Lock | None = None
    _unchecked: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_unchecked", np.full(len(self.images), self.sums is not None))

    @property
    def good(self) -> np.ndarray:
        """int64: the numbers of the readable files, ascending."""
        return np.setdiff1d(np.arange(len(self.images)), np.fromiter(self.bad, np.int64, len(self.bad)))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images in `rows`, each of them checked against its sum the first time: uint8 (n, height, width, 3).

        Called from several threads.

        Raises:
            UserError: a damaged image can't be made again. The cache is then filled anew when it is opened next.
        """
        pixels = np.take(self.images, rows, axis=0)
        if self.sums is not None:
            mended: dict[int, np.ndarray] = {}  # a row may be asked for several times
            for place in np.flatnonzero(self._unchecked[rows]):
                row = int(rows[place])
                if zlib.crc32(pixels[place].data) == self.sums[row]:
                    self._unchecked[row] = False
                else:
                    if row not in mended:
                        mended[row] = self._mended(row, int(self.sums[row]))
                    pixels[place] = mended[row]
        return pixels

    def _mended(self, row: int, wanted: int) -> np.ndarray:
        """The pixels of a row that changed on the disk: from its file, and put back into the cache if that can be."""
        if self.files is None or self.resizing is None:
            raise ValueError("images with sums to hold them to come with the files that they were made of")
        name, where = printable(self.files.names[row]), printable(self.folder)
        try:
            pixels = self.files.pixels(row, self.resizing).pixels
            reason = "" if zlib.crc32(pixels.data) == wanted else "its file isn't what it was either"
        except ImageError as error:
            pixels, reason = None, str(error)
        if pixels is None or reason:
            with contextlib.suppress(OSError):  # so that nothing of it is trusted any more
                (self.folder / INDEX).unlink()
            raise UserError(
                f"the prepared image of {name} in {where} is damaged, and can't be made again: {reason}. Start again: "
                "the images will be prepared anew"
            )
        outcome = "it was decoded again"
        try:
            with open(self.folder / IMAGES, "r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)  # where the rows end; a header of any length comes before them
                write_row(file.fileno(), pixels, end - (len(self.images) - row) * pixels.nbytes)
        except OSError as error:
            outcome = f"it was decoded again, and couldn't be put back: {error.strerror or error}"
        warn(f"the prepared image of {name} in {where} was damaged: {outcome}")
        return pixels


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jax_alexnet`, by default `~/.cache/jax_alexnet`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "jax_alexnet"


def prepare_images(
    files: Images,
    resizing: Resizing,
    cache_dir: Path | None = None,
    *,
    threads: int | None = None,
    max_bad: int = 10,
    progress: Progress | None = None,
) -> PreparedImages:
    """Opens the cache of `files`, filling it first where it is missing, unfinished or damaged.

    Args:
        files: what to decode.
        resizing: the one size of all images.
        cache_dir: default `default_cache_dir()`.
        threads: decoding threads, default one for each core this process may use.
        max_bad: unreadable files that are left out before the whole is refused.
        progress: called some times a second with files done, files in all, and what is being done.

    Raises:
        UserError: more than `max_bad` unreadable files, no space, or a folder that can't be written.
    """
    versions = decoders()
    key = digest(str(FORMAT), files.fingerprint, repr(resizing), versions)
    folder = (cache_dir or default_cache_dir()).expanduser().resolve() / f"images-{key}"
    lineage = digest(files.source, repr(resizing), versions) if files.source else ""
    origin = Origin(printable(files.source), lineage, (resizing.height, resizing.width), len(files))
    prepared = None
    with contextlib.suppress(Damaged):  # whoever fills it again says so
        prepared = _open(folder, files, resizing)
    if prepared is None:
        report = progress or (lambda done, total, what: None)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with cache_lock(folder, lambda: report(0, len(files), "waiting for another run to prepare the images")):
                prepared = _open_or_build(folder, files, resizing, threads or usable_cores(), max_bad, report, origin)
        except OSError as error:
            raise UserError(
                f"cannot prepare images in {printable(folder.parent)}: {error.strerror or error}. Free some "
                "space, make the directory writable, or choose another place with --cache-dir"
            ) from error
    _check_bad(prepared.bad, files, max_bad)
    return prepared


def _open_or_build(
    folder: Path, files: Images, resizing: Resizing, threads: int, max_bad: int, report: Progress, origin: Origin
) -> PreparedImages:
    """What the holder of the folder's lock does."""
    try:
        prepared = _open(folder, files, resizing)
        if prepared is not None:
            return prepared
    except Damaged as damage:
        warn(f"the prepared images in {printable(folder)} are damaged ({damage}): preparing them again")
    if folder.exists():
        shutil.rmtree(folder)
    partial, shape = folder.with_name(folder.name + ".partial"), _shape(files, resizing)
    filling = Filling(partial, shape)
    filling.open()
    try:
        write_origin(partial, origin)
        fill(filling, files, resizing, threads, max_bad, report)
        _check_bad(filling.bad, files, max_bad)
        filling.finish()
    finally:
        filling.close()
    several = np.flatnonzero(filling.states == SEVERAL).tolist()
    write_index(partial, Index(origin, shape, filling.bad, tuple(several), filling.sums))
    os.replace(partial, folder)
    sync_directory(folder.parent)
    prepared = None
    with contextlib.suppress(Damaged):
        prepared = _open(folder, files, resizing)
    if prepared is None:
        raise UserError(f"{printable(folder)} changed while it was written; remove it and try again")
    remove_older(folder, origin.lineage)
    return prepared


def _open(folder: Path, files: Images, resizing: Resizing) -> PreparedImages | None:
    """The finished cache in `folder`, held; None where there is none.

    Raises:
        Damaged: there is, and anything but its pixels is not as it was written.
    """
    try:
        held = hold(folder / INDEX)
    except FileNotFoundError:
        if not folder.exists():
            return None
        raise Damaged(f"{INDEX}: it is missing") from None
    except OSError as error:
        raise Damaged(f"{INDEX}: {error.strerror or error}") from error
    if held is None:  # another process is removing it
        return None
    index, images = read_index(folder, _shape(files, resizing))
    with contextlib.suppress(OSError):  # when it was last used; a read-only cache stays as it is
        os.utime(folder)
    checksums, sums = index.sums
    return PreparedImages(
        images,
        index.bad,
        checksums,
        folder,
        folder.name.removeprefix("images-"),
        index.several,
        sums,
        files,
        resizing,
        held,
    )


def _shape(files: Images, resizing: Resizing) -> tuple[int, int, int, int]:
    return len(files), resizing.height, resizing.width, 3


def _check_bad(bad: dict[int, str], files: Images, max_bad: int) -> None:
    if len(bad) > max_bad:
        listed = "\n  ".join(reason for _, reason in sorted(bad.items())[:20])
        raise UserError(
            f"{len(bad)} image files can't be read, more than the {max_bad} that --max-bad-images leaves out:\n"
            f"  {listed}\nReplace or remove them, or allow more"
        )
    if len(bad) == len(files):
        raise UserError("none of the image files can be read:\n  " + "\n  ".join(bad.values()))
