"""Checkpoints: written by orbax, verified by our own manifest, complete or not there at all.

Layout of a checkpoint directory::

    step_00000100/          a complete checkpoint
        state/              the arrays, in orbax's format: plain nested dicts, one uncompressed file per array
        manifest.json       digests, shapes, dtypes and the run's facts; see `jax_alexnet.files.manifest`
    step_00000150.bad/      one that failed its verification, set aside
    .saving-...             one that is being written, or was when the process was killed

Arrays are saved whole, from host memory, and come back as numpy arrays: neither the number of devices nor their
kind leaves a trace, and the caller places them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file
from jax_alexnet.files import checkpoint_arrays, checkpoint_files
from jax_alexnet.files import manifest as manifests
from jax_alexnet.files.checkpoint_files import Checkpoint, PathLike, best, checkpoints, newest, remove_leftovers
from jax_alexnet.files.manifest import DamagedCheckpoint, Manifest

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BackgroundSaver",
    "Checkpoint",
    "CheckpointWarning",
    "DamagedCheckpoint",
    "Restored",
    "best",
    "checkpoints",
    "newest",
    "remove_leftovers",
    "restore",
    "restore_newest",
    "save",
]

State = TypeVar("State")
NEWEST_KEPT = 2


class CheckpointWarning(UserWarning):
    """A checkpoint was set aside or ignored."""


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A verified state: numpy arrays in the template's structure, with the facts saved beside it."""

    state: State
    step: int
    metric: float | None
    metadata: dict[str, Any]
    path: Path


def save(
    directory: PathLike,
    step: int,
    state: Any,
    metadata: Mapping[str, Any],
    *,
    metric: float | None = None,
    keep: int = NEWEST_KEPT,
) -> Path:
    """Saves `state` and then removes all but the `keep` newest checkpoints and the best one.

    Args:
        directory: where the checkpoints lie; created if missing.
        step: optimizer steps done.
        state: any pytree of arrays and numbers. Arrays on several devices are saved whole; in a run of several
            processes they must be replicated, and one process alone saves.
        metadata: plain facts to compare and to restore: model, classes, optimizer, class_names, epoch, ...
        metric: what "best" is judged by, higher is better.
        keep: how many of the newest to keep.

    Returns:
        The checkpoint's absolute path.

    Raises:
        UserError: the disk is full or not writable; what was saved before is untouched.
    """
    return _write(Path(directory).resolve(), step, checkpoint_arrays.to_host(state), metadata, metric, keep)


class BackgroundSaver:
    """Saves on another thread, one checkpoint at a time, while training goes on.

    An error of one save is raised by the next call of `save`, `wait` or `close`.
    """

    def __init__(self, directory: PathLike, *, keep: int = NEWEST_KEPT) -> None:
        self.directory = Path(directory).resolve()
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def save(self, step: int, state: Any, metadata: Mapping[str, Any], *, metric: float | None = None) -> None:
        """Copies `state` to host memory, so that it may change or be donated, and returns; see `save`."""
        self.wait()
        arrays = checkpoint_arrays.to_host(state, copy=True)
        facts = atomic_file.plain(metadata)
        self._pending = self._pool.submit(_write, self.directory, step, arrays, facts, metric, self._keep)

    def wait(self) -> Path | None:
        """Waits for the save in progress and returns its path, or None if there is none."""
        pending, self._pending = self._pending, None
        return None if pending is None else pending.result()

    def close(self) -> None:
        """Waits for the save in progress and ends the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # the error on its way out matters more than a failed save
            with contextlib.suppress(Exception):
                self.close()


def restore(
    path: PathLike, template: State, *, expected: Mapping[str, Any] | None = None, partial: bool = False
) -> Restored[State]:
    """Restores and verifies one checkpoint.

    Args:
        path: a checkpoint, such as .../checkpoints/step_00000100.
        template: a pytree whose leaves have a shape and a dtype (`jax.eval_shape` makes one without allocating
            anything); optax NamedTuples and dataclasses come back as such.
        expected: facts that must equal those in the saved metadata, such as model, classes and optimizer.
        partial: whether the checkpoint may hold more than the template, so that {"params": ...} suffices.

    Raises:
        DamagedCheckpoint: the checkpoint isn't what was saved.
        UserError: `expected` or the template differ from what was saved; the message lists how. Nothing was
            allocated by then.
    """
    path = Path(path).resolve()
    manifest = manifests.read(path)
    shown = printable(path)
    other = manifests.differences(manifest.metadata, expected or {})
    if other:
        raise UserError(
            f"{shown} was saved with other settings ({'; '.join(other)}): "
            "give the saved ones, or start a new run with another --output."
        )
    leaves, structure = checkpoint_arrays.named_leaves(template)
    other = checkpoint_arrays.structure_differences(manifest, leaves, partial)
    if other:
        listed = "; ".join(other[:8]) + (f"; and {len(other) - 8} more" if other[8:] else "")
        raise UserError(f"{shown} holds another network or optimizer state ({listed}).")
    arrays = checkpoint_arrays.read_arrays(path, manifest, list(leaves))
    state = structure.unflatten(checkpoint_arrays.like(leaf, arrays[name]) for name, leaf in leaves.items())
    return Restored(state, manifest.step, manifest.metric, manifest.metadata, path)


def restore_newest(
    directory: PathLike,
    template: State,
    *,
    expected: Mapping[str, Any] | None = None,
    partial: bool = False,
    strict: bool = False,
    read_only: bool = False,
) -> Restored[State] | None:
    """Restores the newest checkpoint that is intact.

    A damaged one is renamed to *.bad with a warning, and the one before is tried. Leftovers of killed saves are
    removed.

    Args:
        directory: where the checkpoints lie.
        template: see `restore`.
        expected: see `restore`.
        partial: see `restore`.
        strict: refuse if the newest is damaged.
        read_only: rename and remove nothing; for commands that look at a run which may be going on.

    Returns:
        None if no checkpoint was ever finished there.

    Raises:
        UserError: see `restore`; or every checkpoint is damaged; or the newest is, and `strict` is set.
    """
    directory = Path(directory).resolve()
    if not read_only:
        remove_leftovers(directory)
    reasons = []
    for path in checkpoint_files.candidates(directory):
        try:
            return restore(path, template, expected=expected, partial=partial)
        except DamagedCheckpoint as error:
            if read_only and not path.exists():
                continue  # the run that is going on has just removed it
            if strict:
                raise DamagedCheckpoint(f"{error}. Strict mode refuses to use an older checkpoint.") from error
            reasons.append(str(error))
            aside = None if read_only else checkpoint_files.set_aside(path)
            what = "ignored" if aside is None else f"set aside as {printable(aside.name)}"
            warnings.warn(f"{error}; {what}", CheckpointWarning, stacklevel=2)
    reasons += checkpoint_files.set_aside_before(directory)
    if reasons:
        raise UserError(
            f"no intact checkpoint is left in {printable(directory)} ({'; '.join(reasons)}): "
            "restore one from a copy, or start a new run with another --output."
        )
    return None


def _write(
    directory: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    metric: float | None,
    keep: int,
) -> Path:
    """Writes one checkpoint under a temporary name, renames it, and prunes the others."""
    final = directory / f"step_{step:08d}"
    temporary = directory / f"{checkpoint_files.SAVING}{final.name}-{os.getpid()}"
    metric = None if metric is None or math.isnan(metric) else float(metric)
    try:
        with atomic_file.naming_the_path("save the checkpoint", final):
            directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            checkpoint_files.need_space(temporary, sum(array.nbytes for array in arrays.values()))
            leaves = manifests.describe(arrays)
            checkpoint_arrays.write_arrays(temporary / checkpoint_arrays.STATE, arrays)
            files = manifests.list_files(temporary, checkpoint_arrays.STATE)
            manifests.write(temporary, Manifest(step, metric, atomic_file.plain(metadata), leaves, files))
            checkpoint_files.replace(temporary, final)
    except BaseException:
        checkpoint_files.discard(temporary)
        raise
    checkpoint_files.prune(directory, keep)
    return final
