"""Decoding many image files into one array on disk, on several threads, so that it can be interrupted."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_io.decoding import ImageError, Resizing
from alexnet_io.errors import UserError
from alexnet_io.printing import printable
from alexnet_io.sources.files import Images

PENDING, GOOD, BAD = 0, 1, 2
_SYNC_EVERY_S = 5.0
_REPORT_EVERY_S = 0.25


class Filling:
    """The folder `images-KEY.partial`: one row of pixels, one state byte and one checksum for each file.

    Rows are written with plain writes, not through a map: a full disk is then an error and not a crash.
    Unreadable files are forgotten when interrupted, and tried again.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape
        self.row_bytes = int(np.prod(shape[1:]))
        self.states = np.zeros(shape[0], np.uint8)
        self.checksums = np.zeros(shape[0], np.uint32)
        self.bad: dict[int, str] = {}

    def open(self) -> None:
        """Opens what an interrupted fill left behind, or starts anew where that is missing or torn.

        Raises:
            UserError: the disk has no room for it.
            OSError: the folder can't be written.
        """
        if not self._resume():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            np.lib.format.open_memmap(self.folder / "images.npy", "w+", np.uint8, self.shape)
        needed = int((self.states == PENDING).sum()) * self.row_bytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"the prepared images need {needed / 1e9:.1f} GB in {printable(self.folder.parent)}, where "
                f"{free / 1e9:.1f} GB are free. Free some space, or choose another place with --cache-dir"
            )
        self._offset = (self.folder / "images.npy").stat().st_size - self.shape[0] * self.row_bytes
        self._file = os.open(self.folder / "images.npy", os.O_RDWR)

    def _resume(self) -> bool:
        try:
            images = np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)
            states = np.fromfile(self.folder / "done.bin", np.uint8)
            checksums = np.fromfile(self.folder / "checksums.bin", np.uint32)
        except (OSError, ValueError, EOFError):
            return False
        if images.shape != self.shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
            return False
        if states.shape != self.states.shape or checksums.shape != self.states.shape:
            return False
        states[states != GOOD] = PENDING
        self.states, self.checksums = states, checksums
        return True

    def write(self, number: int, pixels: np.ndarray, checksum: int) -> None:
        """Stores row `number`; called from several threads."""
        view, place = pixels.data.cast("B"), self._offset + number * self.row_bytes
        while view:
            written = os.pwrite(self._file, view, place)
            view, place = view[written:], place + written
        self.checksums[number] = checksum
        self.states[number] = GOOD

    def reject(self, number: int, reason: str) -> None:
        """Marks the file of row `number` as unreadable."""
        self.bad[number] = reason
        self.states[number] = BAD

    def sync(self) -> None:
        """Makes the rows written so far survive: first the pixels, then the states that vouch for them."""
        states = self.states.copy()
        os.fsync(self._file)
        self.checksums.tofile(self.folder / "checksums.bin")
        states.tofile(self.folder / "done.bin")

    def finish(self) -> None:
        """Leaves only what a finished cache holds."""
        os.fsync(self._file)
        np.save(self.folder / "checksums.npy", self.checksums)
        (self.folder / "checksums.bin").unlink(missing_ok=True)
        (self.folder / "done.bin").unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the writing."""
        os.close(self._file)


def fill(
    filling: Filling,
    files: Images,
    resizing: Resizing,
    threads: int,
    max_bad: int,
    report: Callable[[int, int, str], None],
) -> None:
    """Decodes every pending row; stops early once more than `max_bad` files are unreadable.

    Pillow decodes and resizes outside Python's global lock, so threads suffice.

    Raises:
        OSError: a row can't be written.
    """
    pending = np.flatnonzero(filling.states == PENDING).tolist()
    numbers, stop, failures = iter(pending), threading.Event(), []

    def work() -> None:
        try:
            for number in numbers:  # list iterators are safe to share: each number goes to one thread
                if stop.is_set():
                    return
                _fill_row(filling, files, number, resizing)
        except BaseException as error:
            failures.append(error)
            stop.set()

    workers = [threading.Thread(target=work, name="decode", daemon=True) for _ in range(max(1, threads))]
    total, synced = len(files), time.monotonic()
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            _join_for(workers, _REPORT_EVERY_S)
            report(int((filling.states != PENDING).sum()), total, "preparing images")
            if len(filling.bad) > max_bad:
                break
            if time.monotonic() - synced > _SYNC_EVERY_S:
                filling.sync()
                synced = time.monotonic()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        filling.sync()
    if failures:
        raise failures[0]
    report(total, total, "preparing images")


def _join_for(workers: list[threading.Thread], seconds: float) -> None:
    end = time.monotonic() + seconds
    for worker in itertools.takewhile(lambda _: time.monotonic() < end, workers):
        worker.join(max(0.0, end - time.monotonic()))


def _fill_row(filling: Filling, files: Images, number: int, resizing: Resizing) -> None:
    try:
        pixels, checksum = files.pixels(number, resizing)
    except ImageError as error:
        filling.reject(number, str(error))
    else:
        filling.write(number, pixels, checksum)
