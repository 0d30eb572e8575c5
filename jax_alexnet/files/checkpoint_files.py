"""Which checkpoints a directory holds, which of them stay, and how one takes its place. Knows no arrays."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import time
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.files import atomic_file
from jax_alexnet.files import manifest as manifests
from jax_alexnet.files.manifest import DamagedCheckpoint, Manifest

PathLike = str | os.PathLike[str]
SAVING, REMOVING, BAD, OLD = ".saving-", ".removing-", ".bad", ".old"
_NAME = re.compile(r"step_(\d{8,})")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk; its arrays have not been looked at."""

    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Optimizer steps done when it was saved."""
        return self.manifest.step


def checkpoints(directory: PathLike) -> list[Checkpoint]:
    """The complete checkpoints of `directory` by ascending step; those without a sound manifest are left out."""
    found = []
    for path in reversed(candidates(Path(directory).resolve())):
        with contextlib.suppress(DamagedCheckpoint):
            found.append(Checkpoint(path, manifests.read(path)))
    return found


def newest(directory: PathLike) -> Checkpoint | None:
    """The checkpoint with the most steps."""
    return max(checkpoints(directory), key=lambda checkpoint: checkpoint.step, default=None)


def best(directory: PathLike) -> Checkpoint | None:
    """The checkpoint with the highest metric, the earliest of equals; None if no metric was saved."""
    judged = [found for found in checkpoints(directory) if found.manifest.metric is not None]
    return max(judged, key=lambda found: (found.manifest.metric, -found.step), default=None)


def remove_leftovers(directory: PathLike) -> None:
    """Removes what killed saves left behind. Only for the process that holds the run directory's lock."""
    directory = Path(directory).resolve()
    for path in entries(directory):
        if path.name.startswith((SAVING, REMOVING)):
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == OLD and _NAME.fullmatch(path.stem):
            replacement = path.with_suffix("")
            if replacement.exists():
                remove(path)
            else:
                path.rename(replacement)


def replace(temporary: Path, final: Path) -> None:
    """Renames `temporary` to `final`; at every moment one of the two checkpoints can be found."""
    old = final.with_suffix(OLD)
    if final.exists():
        try:
            manifests.read(final)
        except DamagedCheckpoint:  # not a checkpoint of ours: not ours to delete
            set_aside(final)
        else:
            final.rename(old)
    temporary.rename(final)
    atomic_file.sync_directory(final.parent)
    if old.exists():
        remove(old)


def entries(directory: Path) -> list[Path]:
    """Everything in `directory` by name; nothing if there is no such directory."""
    with atomic_file.naming_the_path("look into", directory):
        return sorted(directory.iterdir()) if directory.is_dir() else []


def candidates(directory: Path) -> list[Path]:
    """What is named like a checkpoint, newest first."""
    named = [path for path in entries(directory) if _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def set_aside(path: Path) -> Path | None:
    """Renames `path` to a free name ending in .bad, or returns None where that isn't allowed."""
    aside, number = path.with_name(path.name + BAD), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{BAD}.{number}")
    try:
        return path.rename(aside)
    except OSError:
        return None


def set_aside_before(directory: Path) -> list[str]:
    """The names of the checkpoints that were set aside, now or by an earlier run."""
    return [printable(path.name) for path in entries(directory) if BAD in path.suffixes]


def prune(directory: Path, keep: int) -> None:
    """Removes all complete checkpoints but the `keep` newest and the best."""
    found = checkpoints(directory)
    kept = {checkpoint.path for checkpoint in found[-keep:]}
    best_one = best(directory)
    for checkpoint in found:
        if checkpoint.path not in kept and (best_one is None or checkpoint.path != best_one.path):
            remove(checkpoint.path)


def remove(path: Path) -> None:
    """Removes a checkpoint so that a kill on the way never leaves half of one under its name."""
    doomed = path.with_name(f"{REMOVING}{path.name}")
    with contextlib.suppress(OSError):
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)


def need_space(temporary: Path, size: int) -> None:
    """Makes sure that `size` bytes fit below `temporary`, before a dozen of orbax's threads find out one by one.

    Raises:
        OSError: they don't.
    """
    free = shutil.disk_usage(temporary).free
    if free < size:
        raise OSError(f"{size / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
    reserve = getattr(os, "posix_fallocate", None)  # sees quotas too; macOS lacks it
    if reserve is None or not size:
        return
    trial = temporary / "reserved"
    with open(trial, "wb") as file:
        try:
            reserve(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    trial.unlink()


def discard(temporary: Path) -> None:
    """Removes a save that failed, against writers of orbax's that haven't noticed yet."""
    for _ in range(20):
        shutil.rmtree(temporary, ignore_errors=True)
        if not temporary.exists():
            break
        time.sleep(0.05)
