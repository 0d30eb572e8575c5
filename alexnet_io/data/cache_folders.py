"""What lies in a cache directory: listed, and removed where no process uses it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from alexnet_io.data.cache_index import INDEX, Origin, read_origin
from alexnet_io.data.cache_lock import lock_path, unused

_NAME = re.compile(r"images-[0-9a-f]{32}(\.partial|\.removed)?")


@dataclass(frozen=True)
class CacheEntry:
    """One set of prepared images, finished or not.

    Attributes:
        folder: where it lies.
        origin: what it was made from, as far as it says so.
        size: bytes on the disk.
        used: seconds since the epoch when it was last opened, or written to.
    """

    folder: Path
    origin: Origin
    size: int
    used: float

    @property
    def finished(self) -> bool:
        """Whether all of it was prepared."""
        return not self.folder.suffix

    def days_since_use(self) -> float:
        """Days since it was last used."""
        return max(0.0, time.time() - self.used) / 86400


def entries(cache_dir: Path) -> list[CacheEntry]:
    """What lies in `cache_dir`, the longest unused first; nothing where there is no such directory.

    Raises:
        OSError: the directory can't be read.
    """
    try:
        found = [path for path in cache_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    listed = []
    for folder in found:
        with contextlib.suppress(FileNotFoundError):  # another process just finished or removed it
            used = folder.stat().st_mtime
            listed.append(CacheEntry(folder, read_origin(folder), _bytes(folder), used))
    return sorted(listed, key=lambda entry: entry.used)


def remove(folder: Path) -> bool:
    """Removes a set of prepared images unless a process uses it; tells whether it is gone.

    Raises:
        OSError: it can't be removed.
    """
    final = folder.with_suffix("")
    with unused(lock_path(final), create=True) as free:  # held by whoever fills it
        if not free:
            return False
        if folder.suffix:
            shutil.rmtree(folder)
        elif not (folder / INDEX).exists():  # damaged: nobody can have opened it
            _remove_at_once(folder)
        else:
            with unused(folder / INDEX) as free:  # held by whoever reads from it
                if not free:
                    return False
                _remove_at_once(folder)
        if not any(final.with_name(final.name + suffix).exists() for suffix in ("", ".partial", ".removed")):
            lock_path(final).unlink(missing_ok=True)
        return True


def remove_older(folder: Path, lineage: str) -> None:
    """Removes what the finished cache `folder` replaces: those of its lineage that no process uses."""
    with contextlib.suppress(OSError):
        for entry in entries(folder.parent):
            if entry.folder.with_suffix("") != folder and lineage and entry.origin.lineage == lineage:
                remove(entry.folder)


def _remove_at_once(folder: Path) -> None:
    """So that nobody finds half of it, even if this process is killed on the way."""
    doomed = folder.with_name(folder.name + ".removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
