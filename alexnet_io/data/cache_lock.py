"""One process fills a cache while the others wait for it, and none is removed while a process reads from it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

STALL_LIMIT_S = 600.0
_POLL_S = 0.2


class Lock:
    """A file held open with a lock on it, until it is closed or forgotten."""

    file = -1

    def __init__(self, path: Path, flags: int) -> None:
        self.file = os.open(path, flags | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        """Gives it up."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)

    __del__ = close


@contextlib.contextmanager
def cache_lock(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds `folder`'s lock inside the block; the system drops it when the process dies, however that happens.

    Args:
        folder: the finished cache; the lock lies beside it, and `FOLDER.partial/done.bin` shows progress.
        waiting: called some times a second while another process holds the lock.

    Raises:
        UserError: the other process made no progress for `STALL_LIMIT_S` seconds.
        OSError: the lock file can't be created.
    """
    path = lock_path(folder)
    since, mark = time.monotonic(), _progress_mark(folder)
    while (lock := _locked(path, fcntl.LOCK_EX, create=True)) is None:
        waiting()
        time.sleep(_POLL_S)
        if (now := _progress_mark(folder)) != mark:
            since, mark = time.monotonic(), now
        elif time.monotonic() - since > STALL_LIMIT_S:
            raise UserError(
                f"another process holds {printable(path)} and has prepared no image for "
                f"{STALL_LIMIT_S:.0f} s. End that process, or choose another place with --cache-dir"
            )
    with contextlib.closing(lock):
        yield


def lock_path(folder: Path) -> Path:
    """Where the lock of the cache that lies, or will lie, in `folder` is."""
    return folder.with_name(folder.name + ".lock")


def hold(path: Path) -> Lock | None:
    """Marks `path` as in use for as long as what is returned is kept; None where it is about to be removed.

    Raises:
        OSError: it isn't there, or can't be opened.
    """
    try:
        return _locked(path, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return Lock(path, os.O_RDONLY)  # a file system without locks, where nothing is removed either


@contextlib.contextmanager
def unused(path: Path, create: bool = False) -> Iterator[bool]:
    """Tells whether no process, this one included, holds `path`, and keeps it so inside the block.

    Where that can't be found out (no right to write, no locks on that file system), it counts as held.
    """
    try:
        lock = _locked(path, fcntl.LOCK_EX, create)
    except OSError:
        lock = None
    if lock is None:
        yield False
        return
    with contextlib.closing(lock):
        yield True


def _locked(path: Path, kind: int, create: bool = False) -> Lock | None:
    """`path` locked, or None where another process has it or removed it in between."""
    flags = os.O_RDONLY if kind == fcntl.LOCK_SH else os.O_RDWR
    lock = Lock(path, flags | (os.O_CREAT if create else 0))
    try:
        fcntl.flock(lock.file, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.file), os.stat(path)):
            return lock
    except BlockingIOError:
        pass
    except FileNotFoundError:  # in between
        pass
    lock.close()
    return None


def _progress_mark(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(folder.with_name(folder.name + ".partial") / "done.bin").st_mtime_ns
    return 0
