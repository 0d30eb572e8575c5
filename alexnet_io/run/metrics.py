"""metrics.jsonl and metrics.csv: one row per step and split, exact, and whole again after a crash.

metrics.jsonl is the record; metrics.csv holds the same rows for spreadsheets and is rebuilt from it on resume.
Numbers are written so that they read back to the same float64. JSON knows no NaN and no infinity: they appear
as the strings "nan", "inf" and "-inf".

tensorboardX is imported where its events are asked for.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file
from alexnet_io.files.closing import Closing
from alexnet_io.run.directory import METRICS as JSONL

CSV = "metrics.csv"
TENSORBOARD = "tensorboard"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class MetricsRow:
    """One measurement.

    Attributes:
        step: optimizer steps done so far.
        epoch: passes over the training set done so far; a fraction inside an epoch.
        split: "train", "validation" or "test".
        loss: mean cross-entropy in nats.
        top1: share of examples whose first guess is right, 0 to 1.
        top5: the same for the first five guesses.
        learning_rate: in use at this step.
        images_per_second: over all devices.
    """

    step: int
    epoch: float
    split: str
    loss: float
    top1: float | None = None
    top5: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None

    @property
    def accuracy(self) -> float:
        """`top1` of a row that has it.

        Raises:
            UserError: it has none.
        """
        if self.top1 is None:
            raise UserError(f"the metrics of step {self.step}, {self.split}, hold no accuracy: train that run again")
        return self.top1


COLUMNS = tuple(field.name for field in dataclasses.fields(MetricsRow))


class MetricsWriter(Closing):
    """Appends rows to a run's metrics files, each flushed before `write` returns.

    Args:
        directory: the run's directory.
        resume_step: None starts new files; a step keeps the rows up to and including it and repairs the files.
        tensorboard: also write event files under tensorboard/ (needs tensorboardX).

    Raises:
        UserError: the files can't be written, exist although nothing is resumed, or tensorboardX is missing.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, resume_step: int | None = None, tensorboard: bool = False
    ) -> None:
        self.path = Path(directory).resolve() / JSONL
        self._csv_path = self.path.with_name(CSV)
        if resume_step is None and self.path.exists() and self.path.stat().st_size:
            raise UserError(f"{printable(self.path)} already holds a run's metrics: choose another --output.")
        rows = repair(self.path.parent, -1 if resume_step is None else resume_step)
        self._last = {row.split: row.step for row in rows}
        self._board = _tensorboard(self.path.with_name(TENSORBOARD), resume_step) if tensorboard else None
        with atomic_file.naming_the_path("write", self.path):
            self._jsonl = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
            self._csv = open(self._csv_path, "a", encoding="utf-8", newline="")  # noqa: SIM115

    def write(self, row: MetricsRow) -> bool:
        """Appends `row`; False, and nothing written, if its split already has a row of this step or a later one.

        Raises:
            UserError: the disk is full or gone.
            ValueError: the split is none of `SPLITS`.
        """
        row = _checked(dataclasses.asdict(row))
        if row.step <= self._last.get(row.split, -1):
            return False
        for file, text in ((self._jsonl, _json_line(row)), (self._csv, _csv_line(_values(row)))):
            with atomic_file.naming_the_path("write", Path(file.name)):
                file.write(text)
                file.flush()
        self._last[row.split] = row.step
        if self._board is not None:
            for name in COLUMNS[COLUMNS.index("loss") :]:
                value = getattr(row, name)
                if value is not None and math.isfinite(value):
                    self._board.add_scalar(f"{name}/{row.split}", value, row.step)
            self._board.flush()
        return True

    def close(self) -> None:
        """Forces the rows to the disk and closes the files."""
        for file in (self._jsonl, self._csv):
            if not file.closed:
                with atomic_file.naming_the_path("write", Path(file.name)), file:
                    file.flush()
                    os.fsync(file.fileno())
        if self._board is not None:
            self._board.close()
            self._board = None


def read_metrics(path: str | os.PathLike[str]) -> list[MetricsRow]:
    """Reads a metrics.jsonl, or that of a run's directory. A last line that is still being written is left out.

    Raises:
        UserError: the file is missing, or a line is no row; the message names the line.
    """
    path = Path(path)
    path = (path / JSONL if path.is_dir() else path).absolute()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no metrics at {printable(path)}: pass the directory that training wrote.") from None
    except OSError as error:
        raise UserError(f"cannot read {printable(path)}: {error.strerror or error}.") from error
    whole, _, _ = content.rpartition(b"\n")
    rows = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            rows.append(_parse(line))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{printable(path)}, line {number} is no row of metrics ({error}): resuming the run repairs the file."
            ) from None
    return rows


def best_of(rows: Iterable[MetricsRow]) -> MetricsRow | None:
    """The evaluation whose weights a run keeps as its best; None before the first.

    The first with the largest top-1 on the images that steer the run: validation images, or test images where there
    are none.
    """
    measured = [row for row in rows if row.split != "train" and row.top1 is not None and math.isfinite(row.top1)]
    steering = [row for row in measured if row.split == "validation"] or measured
    return max(steering, key=lambda row: row.accuracy, default=None)


def repair(directory: Path, last_step: int) -> list[MetricsRow]:
    """Rewrites both files of `directory` with the whole rows of steps up to `last_step`, each step once.

    Rows beyond `last_step` are what the resumed run will measure again. If a line before the last is damaged,
    the file as it was is kept beside it with the suffix .bad.

    Returns:
        The rows that stay, in order of step.

    Raises:
        UserError: the files can't be read or written.
    """
    path = directory / JSONL
    with atomic_file.naming_the_path("read", path):
        content = path.read_bytes() if path.exists() else b""
    rows: dict[tuple[int, str], MetricsRow] = {}
    lines = content.split(b"\n")
    damaged = False
    for line in lines[:-1]:
        try:
            row = _parse(line)
        except (ValueError, TypeError, OverflowError, RecursionError):
            damaged = True
            continue
        if row.step <= last_step:
            rows.setdefault((row.step, row.split), row)
    if damaged:
        atomic_file.write_bytes(path.with_name(path.name + ".bad"), content)
    kept = sorted(rows.values(), key=lambda row: row.step)
    _rewrite(path, "".join(map(_json_line, kept)))
    _rewrite(path.with_name(CSV), _csv_line(COLUMNS) + "".join(_csv_line(_values(row)) for row in kept))
    return kept


def _rewrite(path: Path, text: str) -> None:
    with atomic_file.naming_the_path("read", path):
        unchanged = path.exists() and path.read_bytes() == text.encode()
    if not unchanged:
        atomic_file.write_text(path, text)


def _parse(line: bytes) -> MetricsRow:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    missing = [name for name in COLUMNS[:4] if name not in values]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    return _checked({name: values.get(name) for name in COLUMNS})


def _checked(values: dict[str, Any]) -> MetricsRow:
    """The row of `values`, numpy scalars made Python's, or a ValueError or TypeError that says what is wrong."""
    values = {name: atomic_file.plain(value) for name, value in values.items()}
    if type(values["step"]) is not int or values["step"] < 0:
        raise ValueError(f"step is {values['step']!r}, not a count")
    if values["split"] not in SPLITS:
        raise ValueError(f"split is {values['split']!r}, not one of {', '.join(SPLITS)}")
    for name in COLUMNS:
        if name not in ("step", "split"):
            values[name] = _number(name, values[name])
    return MetricsRow(**values)


def _number(name: str, value: Any) -> float | None:
    if value is None and name not in ("epoch", "loss"):
        return None
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, not a number")
    number = float(value)
    return value if name == "epoch" and isinstance(value, int) else number


def _json_line(row: MetricsRow) -> str:
    values = {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(row).items()
    }
    return json.dumps(values, allow_nan=False) + "\n"


def _values(row: MetricsRow) -> list[Any]:
    return ["" if value is None else value for value in dataclasses.astuple(row)]


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)  # floats as repr: they read back exactly
    return line.getvalue()


def _tensorboard(directory: Path, resume_step: int | None) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX, which is not installed: "
            "pip install 'jax-alexnet[tensorboard]', or leave --tensorboard out."
        ) from None
    with atomic_file.naming_the_path("write", directory):
        return SummaryWriter(str(directory), purge_step=None if resume_step is None else resume_step + 1)
