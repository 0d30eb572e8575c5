"""What a comparison found: a table for people, JSON for machines, an exit code for scripts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotCompare
from parity.reports.rows import Row

SCHEMA = "parity-report/1"

EXIT_EQUAL, EXIT_MISMATCH, EXIT_COULD_NOT_RUN, EXIT_NOT_EXERCISED = 0, 1, 2, 3


@dataclass
class Report:
    """The outcome of a comparison.

    Attributes:
        rows: one per compared array, in order of execution: forward, end to end, then backward.
        not_exercised: what the inputs or weights left untested, in words.
        settings: how the runs were made (precision flags, seeds, versions).
        arrays: of the worst layer: name to array.
        arrays_of: the row that they belong to.
    """

    rows: list[Row]
    not_exercised: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray] = field(default_factory=dict)
    arrays_of: Row | None = None

    @property
    def equal(self) -> bool:
        """Whether every row is within its bound; of no rows, or rows without a bound, that can't be said."""
        return bool(self.rows) and all(row.equal for row in self.rows)

    @property
    def first_divergence(self) -> Row | None:
        """The first row, in order of execution, where something is wrong."""
        return next((row for row in self.rows if row.diverges), None)

    @property
    def without_bound(self) -> list[Row]:
        """Rows that differ by more than nothing, and nobody knows by how much they may."""
        return [row for row in self.rows if row.open]

    @property
    def divergences(self) -> list[Row]:
        """What diverges: of each layer the first row of its own, and the first of the code around it."""
        found: dict[tuple[str, str, bool], Row] = {}
        for row in self.rows:
            if row.diverges:
                found.setdefault((row.model, row.name, row.stage.startswith(("input", "cotangent"))), row)
        return list(found.values())

    @property
    def worst_row(self) -> Row | None:
        """The row whose arrays are kept: the first divergence, else the one that uses most of its bound."""
        return self.first_divergence or max(self.rows, key=lambda row: row.fraction, default=None)

    @property
    def exit_code(self) -> int:
        """0 equal, 1 mismatch or nothing compared, 3 equal as far as it was exercised and bounds are known."""
        if not self.rows or self.first_divergence is not None:
            return EXIT_MISMATCH
        return EXIT_NOT_EXERCISED if self.not_exercised or self.without_bound else EXIT_EQUAL

    def as_json(self) -> dict[str, Any]:
        """The report as plain types; see SCHEMA for its version."""
        first = self.first_divergence
        return {
            "schema": SCHEMA,
            "equal": self.equal,
            "exit_code": self.exit_code,
            "first_divergence": None if first is None else _divergence(first),
            "divergences": [_divergence(row) for row in self.divergences],
            "without_bound": [_divergence(row) for row in self.without_bound],
            "not_exercised": self.not_exercised,
            "settings": self.settings,
            "arrays_of": next((i for i, row in enumerate(self.rows) if row is self.arrays_of), None),
            "layers": [row.as_json() for row in self.rows],
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Report:
        """The report that `as_json` wrote; infinite numbers, which JSON can't hold, come back where they were null.

        Raises:
            CannotCompare: another version of this program wrote it.
        """
        if plain.get("schema") != SCHEMA:
            raise CannotCompare(f"this report has schema {plain.get('schema')!r}, this program reads {SCHEMA!r}")
        rows = []
        for entry in plain["layers"]:
            values = {**entry, "shape": tuple(entry["shape"])}
            for name in ("max_error", "bound", "fraction", "largest"):
                values[name] = float("inf") if entry[name] is None else entry[name]
            values["index"] = None if entry["index"] is None else tuple(entry["index"])
            rows.append(Row(**values))
        place = plain.get("arrays_of")
        return cls(rows, plain["not_exercised"], plain["settings"], arrays_of=None if place is None else rows[place])

    def write_json(self, path: str | Path) -> None:
        """Write `as_json` to a file."""
        Path(path).write_text(json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def table(self) -> str:
        """One line per comparison, under a header."""
        return "\n".join(_table(self.rows))

    def __str__(self) -> str:
        return "\n".join([self.table(), *self.conclusion()])

    def conclusion(self) -> list[str]:
        """What was found, in words: divergences with their causes, what was not exercised, or that all is equal."""
        lines = []
        for row in self.divergences:
            first = row is self.first_divergence
            lines += _described(row, "first divergence" if first else "also diverges")
        for row in self.without_bound:
            lines += _described(row, "no bound")
        lines += [] if self.rows else ["nothing was compared"]
        lines += [f"not exercised: {what}" for what in self.not_exercised]
        worst = max((row.fraction for row in self.rows), default=0.0)
        if self.equal:
            lines.append(f"equal: {len(self.rows)} comparisons, at most {number(worst)} of a bound used")
        elif self.rows and self.first_divergence is None:
            judged = len(self.rows) - len(self.without_bound)
            lines.append(f"open: {judged} of {len(self.rows)} comparisons are equal, the others have no bound")
        return lines


def _divergence(row: Row) -> dict[str, Any]:
    plain = row.as_json()
    keys = ("model", "torch_name", "stage", "index", "jax", "torch", "max_error", "bound", "verdict", "kind", "detail")
    cause = row.causes[0] if row.causes else None
    return {
        "layer": row.name,
        **{k: plain[k] for k in keys},
        "cause": cause,
        "causes": row.causes,
        "cause_keys": row.cause_keys,
    }


def _allowed(row: Row) -> str:
    return "it isn't known what is allowed" if row.open else f"{number(row.bound)} is allowed"


def _described(row: Row, title: str) -> list[str]:
    where = f"{row.model}: {row.name}" + (f" ({row.torch_name} in PyTorch)" if row.torch_name != row.name else "")
    lines = [f"{title}: {where}, {row.stage}, {row.kind or 'model'}: {row.verdict}"]
    if row.index is not None:
        lines.append(
            f"  worst at {list(row.index)}: JAX {row.jax!r}, PyTorch {row.torch!r}; they differ by "
            f"{number(abs((row.jax or 0) - (row.torch or 0)))}, {_allowed(row)}"
        )
    elif math.isfinite(row.max_error) and row.max_error:
        lines.append(f"  they differ by {number(row.max_error)}, {_allowed(row)}")
    if row.detail:
        lines.append(f"  {row.detail}")
    lines += [f"  cause: {cause}" for cause in row.causes]
    return lines


def _table(rows: list[Row]) -> list[str]:
    """Columns as wide as their contents; numbers to the right."""
    header = ["layer", "stage", "shape", "n", *ERROR_COLUMNS, "ratio", "verdict"]
    several = len({row.model for row in rows}) > 1
    cells = [
        [
            f"{row.model}/{row.name}" if several else row.name,
            row.stage,
            "x".join(map(str, row.shape)) or "-",
            str(row.n),
            *error_cells(row),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            row.verdict if row.equal else row.verdict.upper(),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    left = {0, 1, 2, len(header) - 1}
    lines = []
    for line in [header, *cells]:
        parts = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(parts).rstrip())
    return lines


# The largest difference of all elements, and three columns of the one that uses most of what is allowed to it.
ERROR_COLUMNS = ("largest error", "error at worst", "bound there", "used")


def error_cells(row: Row) -> tuple[str, ...]:
    """What stands in `ERROR_COLUMNS`."""
    bound, used = ("-", "-") if row.open else (number(row.bound), number(row.fraction))
    return number(row.largest), number(row.max_error), bound, used


def number(value: float) -> str:
    """Two significant digits; infinities by name."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "inf" if value > 0 or np.isnan(value) else "-inf"
    return f"{value:.2g}" if 1e-2 <= abs(value) < 1e4 else f"{value:.1e}"
