"""Decoding many image files into one array on disk, on several threads, so that it can be interrupted."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import ImageError, Resizing
from alexnet_io.data.sources.files import Images, Row
from alexnet_io.errors import UserError

PENDING, GOOD, BAD, SEVERAL = range(4)  # SEVERAL: good, and its file has more frames than the one that was taken
DONE = "done.bin"
_SYNC_EVERY_S = 5.0
_REPORT_EVERY_S = 0.25
STALL_LIMIT_S = 120.0


class Filling:
    """The folder `images-KEY.partial`: one row of pixels, one state byte and two sums for each file.

    The sums are those of `cache_index.Index`; states and sums lie in `done.bin`, with a sum of their own. Rows are
    written with plain writes, not through a map: a full disk is then an error and not a crash. Unreadable files are
    forgotten when interrupted, and tried again.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape
        self.row_bytes = int(np.prod(shape[1:]))
        self.states = np.zeros(shape[0], np.uint8)
        self.sums = np.zeros((2, shape[0]), np.uint32)
        self.bad: dict[int, str] = {}
        self.leave_open = False

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
            images = np.lib.format.open_memmap(self.folder / "images.npy", mode="r")
            done = (self.folder / DONE).read_bytes()
        except Exception:  # missing, or whatever it holds now is not what was written
            return False
        if images.shape != self.shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
            return False
        count, content = self.shape[0], done[:-4]
        if len(content) != count * 9 or done[-4:] != _sum(content):
            return False
        self.states = np.frombuffer(content[:count], np.uint8).copy()
        self.states[(self.states != GOOD) & (self.states != SEVERAL)] = PENDING
        self.sums = np.frombuffer(content[count:], np.uint32).reshape(2, count).copy()
        return True

    def write(self, number: int, row: Row) -> None:
        """Stores row `number`; called from several threads."""
        write_row(self._file, row.pixels, self._offset + number * self.row_bytes)
        self.sums[:, number] = row.checksum, zlib.crc32(row.pixels.data)
        self.states[number] = SEVERAL if row.several else GOOD

    def reject(self, number: int, reason: str) -> None:
        """Marks the file of row `number` as unreadable."""
        self.bad[number] = reason
        self.states[number] = BAD

    def sync(self) -> None:
        """Makes the rows written so far survive: first the pixels, then the states that vouch for them."""
        states = self.states.tobytes()
        os.fsync(self._file)
        content = states + self.sums.tobytes()
        new = self.folder / f"{DONE}.new"
        new.write_bytes(content + _sum(content))
        os.replace(new, self.folder / DONE)

    def finish(self) -> None:
        """Leaves nothing that a finished cache doesn't hold."""
        os.fsync(self._file)
        (self.folder / DONE).unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the writing; not where a thread that hangs might still write, by then into another file."""
        if not self.leave_open:
            os.close(self._file)


def write_row(file: int, pixels: np.ndarray, place: int) -> None:
    """Writes all bytes of `pixels` (height, width, 3) at `place` of the open file `file`."""
    view = pixels.data.cast("B")
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


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
        UserError: no file could be read for `STALL_LIMIT_S` seconds.
    """
    decoders = _Decoders(filling, files, resizing, threads)
    total, synced = len(files), time.monotonic()
    try:
        while decoders.busy_after(_REPORT_EVERY_S):
            report(int((filling.states != PENDING).sum()), total, "preparing images")
            if len(filling.bad) > max_bad:
                break
            if time.monotonic() - synced > _SYNC_EVERY_S:
                filling.sync()
                synced = time.monotonic()
    finally:
        decoders.stop()
    filling.sync()
    report(int((filling.states != PENDING).sum()), total, "preparing images")


class _Decoders:
    """Threads that share out the pending rows."""

    def __init__(self, filling: Filling, files: Images, resizing: Resizing, threads: int) -> None:
        self._filling, self._files, self._resizing = filling, files, resizing
        self._numbers = iter(np.flatnonzero(filling.states == PENDING).tolist())
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._reading: dict[int, tuple[int, float]] = {}  # by thread: row, and when it was begun
        self._hung = False
        self._threads = [
            threading.Thread(target=self._work, args=(place,), name="decode", daemon=True)
            for place in range(max(1, threads))
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, place: int) -> None:
        try:
            for number in self._numbers:  # list iterators may be shared: each number goes to one thread
                if self._stop.is_set():
                    return
                self._reading[place] = number, time.monotonic()
                try:
                    row = self._files.pixels(number, self._resizing)
                except ImageError as error:
                    self._filling.reject(number, str(error))
                else:
                    self._filling.write(number, row)
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()
        finally:
            self._reading.pop(place, None)

    def busy_after(self, seconds: float) -> bool:
        """Waits, and tells whether work is left.

        Raises:
            UserError: a file has been read for too long.
        """
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        for number, since in list(self._reading.values()):
            if time.monotonic() - since > STALL_LIMIT_S:
                self._hung = True
                raise UserError(
                    f"{printable(self._files.names[number])} could not be read within {STALL_LIMIT_S:g} s: check the "
                    "disk or network drive that holds it"
                )
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ends all threads, but for those that hang in the system, and raises what went wrong in them."""
        self._stop.set()
        if self._hung:
            self._filling.leave_open = True
            return
        for thread in self._threads:
            thread.join()
        if self._failures:
            with contextlib.suppress(OSError):
                self._filling.sync()
            raise self._failures[0]
