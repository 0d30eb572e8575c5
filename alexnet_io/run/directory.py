"""The directory of one training run: who may write into it, and what lies there.

Layout::

    .lock             see `alexnet_io.run.directory_lock`
    run.json          see `alexnet_io.run.run_description`
    settings.yaml     the settings alone, as the command line reads them back
    statistics.*      see `alexnet_io.run.statistics_file`
    metrics.jsonl/csv see `alexnet_io.run.metrics`
    checkpoints/      see `jax_alexnet.files.checkpoint`
    *.png             see `alexnet_io.run.plots`
    report.html       see `alexnet_io.report`

PyYAML is imported where settings are written down: `--help` does without.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file
from alexnet_io.files.closing import Closing
from alexnet_io.run.directory_lock import LOCK, DirectoryLock
from alexnet_io.run.run_description import DESCRIPTION, add_resumption, read_description, write_description

SETTINGS = "settings.yaml"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
STATISTICS = "statistics.safetensors"
DEFAULT_ROOT = "runs"


class RunDirectory(Closing):
    """Holds a run's directory for writing, until it is closed or the process ends.

    Args:
        path: created if missing; relative paths are resolved once, so a later chdir changes nothing.
        resume: True continues the run that is there; False starts a new one.

    Raises:
        UserError: another process trains there; the directory isn't writable; it holds a run that has finished a step
            and `resume` is False; it holds none and `resume` is True; it holds files that are not a run's. Nothing is
            deleted.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(path).expanduser().resolve()
        self.resumed = resume
        _check_contents(self.path, resume)
        with atomic_file.naming_the_path("create the run directory", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(self.path)
        try:
            _check_contents(self.path, resume)  # another run may have come and gone before the lock was ours
        except UserError:
            self.close()
            raise

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / CHECKPOINTS

    def describe(
        self,
        *,
        model: str,
        class_names: list[str],
        normalisation: Mapping[str, Any],
        settings: Mapping[str, Any],
        settings_yaml: str | None = None,
        **more: Any,
    ) -> None:
        """Writes run.json and settings.yaml.

        Args:
            model: the variant's name.
            class_names: in the order of the output units.
            normalisation: what was subtracted and divided by, in the units of the images.
            settings: every setting of the run; dataclass fields, numpy scalars and paths are fine.
            settings_yaml: the text for settings.yaml; by default `settings` as YAML.
            more: further facts for run.json, such as image_size, recipe or devices.
        """
        if settings_yaml is None:
            import yaml  # which `--help` does without

            settings_yaml = yaml.safe_dump(atomic_file.plain(settings), sort_keys=False)
        atomic_file.write_text(self.path / SETTINGS, settings_yaml)
        # Last: its presence makes this a run.
        write_description(self.path, model, class_names, normalisation, settings, more)

    def went_on(self, **how: Any) -> None:
        """Adds to run.json that the run was resumed, when, and by which command.

        Args:
            how: what else is to be known of it, such as `lengths` and `machine`.
        """
        add_resumption(self.path, how)

    def description(self) -> dict[str, Any]:
        """What run.json says; see `read_description`."""
        return read_description(self.path)

    def close(self) -> None:
        """Lets another process train here."""
        self._lock.release()


def refuse_unusable(path: str | os.PathLike[str], *, resume: bool, new: bool = False) -> None:
    """Refuses what `RunDirectory` would refuse, and a place that can't be written to; creates nothing.

    Args:
        path: the run's directory; with `new`, the folder in which one is to be made.
        resume: see `RunDirectory`.
        new: see `path`.

    Raises:
        UserError: see `RunDirectory`.
    """
    path = Path(path).expanduser().resolve()
    if not new:
        _check_contents(path, resume)
    with atomic_file.naming_the_path("look into", path):
        there = path
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise UserError(
                f"{printable(there)} is a file, and {printable(path)} is to lie in it: choose another --output."
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"{printable(there)} can't be written to: choose another --output, or make it writable.")


def new_default_directory(model: str, data: str, root: str | os.PathLike[str] = DEFAULT_ROOT) -> Path:
    """Makes an empty directory `root`/time-model-data that no other run has, and returns its absolute path.

    Raises:
        UserError: `root` is not writable.
    """
    root = Path(root).resolve()
    data = data.rstrip("/")
    kind, _, place = data.partition(":")
    data = f"{kind}-{Path(place).name}" if place else kind
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{time.strftime('%Y%m%d-%H%M%S')}-{model}-{data}")[:120]
    with atomic_file.naming_the_path("create a run directory in", root):
        root.mkdir(parents=True, exist_ok=True)
        attempt = 1
        while True:
            path = root / (name if attempt == 1 else f"{name}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                attempt += 1
            else:
                return path


def _check_contents(path: Path, resume: bool) -> None:
    """Refuses a directory that this run must not write into."""
    shown = printable(path)
    with atomic_file.naming_the_path("look into", path):
        if path.exists() and not path.is_dir():
            raise UserError(f"{shown} is a file; --output takes a directory.")
        entries = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    if DESCRIPTION in entries:
        if not resume and _has_finished_a_step(path):
            raise UserError(f"{shown} already holds a run: continue it with --resume, or choose another --output.")
        return
    # What a run leaves that was killed before run.json existed is no reason to refuse.
    foreign = [name for name in entries if name not in (LOCK, SETTINGS, STATISTICS) and not _is_leftover(name)]
    if foreign:
        listed = ", ".join(printable(name) for name in foreign[:3]) + (", ..." if foreign[3:] else "")
        raise UserError(
            f"{shown} holds files that are no run's ({listed}): choose another --output, or empty it yourself."
        )
    if resume:
        raise UserError(f"{shown} holds no run to resume: leave --resume out, or choose another --output.")


def _has_finished_a_step(path: Path) -> bool:
    """Whether the run in `path` left anything to go on from or to look at."""
    with atomic_file.naming_the_path("look into", path):
        saved = list((path / CHECKPOINTS).glob("step*"))
        metrics = path / METRICS
        return bool(saved) or (metrics.exists() and metrics.stat().st_size > 0)


def _is_leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(atomic_file.PARTIAL_SUFFIX)
