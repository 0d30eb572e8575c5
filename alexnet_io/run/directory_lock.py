"""The lock of a run's directory: one process trains there at a time, and the kernel lets go when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file

LOCK = ".lock"

_locked_here: set[Path] = set()  # a record lock doesn't keep out its own process


class DirectoryLock:
    """Keeps a directory for this process, until it is released or the process ends, however it ends.

    A POSIX record lock rather than flock: forked data workers must not keep it when the trainer is killed.

    Args:
        path: of the directory, resolved.

    Raises:
        UserError: another process trains there, or this one; or the disk has no locks.
    """

    def __init__(self, path: Path) -> None:
        if path in _locked_here:  # asked before opening: closing any handle of the file would give the lock back
            raise _in_use(path, "this very process")
        self._path, file = path, path / LOCK
        with atomic_file.naming_the_path("write", file):
            self._file = open(file, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 (open as long as the run)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._file.seek(0)
            holder = self._file.read(1000).strip()
            self._file.close()
            raise _in_use(path, holder or "a process that left no name") from None
        except OSError as error:
            self._file.close()
            raise UserError(
                f"cannot lock {printable(file)}: {error.strerror}. Choose an --output on a disk with locks."
            ) from error
        _locked_here.add(path)
        with atomic_file.naming_the_path("write", file):
            self._file.truncate(0)
            began = time.strftime("%Y-%m-%d %H:%M:%S")
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()}, since {began}\n")
            self._file.flush()

    def release(self) -> None:
        """Let another process train there."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self._file.close()  # gives the lock back
        _locked_here.discard(self._path)


def in_use(path: str | os.PathLike[str]) -> bool:
    """Whether a process trains in directory `path`, as far as this machine can tell; writes nothing."""
    path = Path(path).expanduser().resolve()
    if path in _locked_here:
        return True
    try:
        lock = open(path / LOCK, encoding="utf-8", errors="replace")  # noqa: SIM115 (closed below)
    except OSError:
        return False
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back where the file is closed
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a disk without locks
            return False
    return False


def _in_use(path: Path, holder: str) -> UserError:
    return UserError(f"{printable(path)} is in use by {holder}: choose another --output, or wait until it ends.")
