"""One process fills a cache; the others wait for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from alexnet_io.errors import UserError
from alexnet_io.printing import printable

STALL_LIMIT_S = 600.0
_POLL_S = 0.2


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
    path = folder.with_name(folder.name + ".lock")
    with open(path, "a+b") as file:
        since, mark = time.monotonic(), _progress_mark(folder)
        while not _try_lock(file):
            waiting()
            time.sleep(_POLL_S)
            if (now := _progress_mark(folder)) != mark:
                since, mark = time.monotonic(), now
            elif time.monotonic() - since > STALL_LIMIT_S:
                raise UserError(
                    f"another process holds {printable(path)} and has prepared no image for "
                    f"{STALL_LIMIT_S:.0f} s. End that process, or choose another place with --cache-dir"
                )
        yield


def _progress_mark(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(folder.with_name(folder.name + ".partial") / "done.bin").st_mtime_ns
    return 0


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
