"""What a comparison found: words for people, JSON for machines, an exit code for scripts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from parity.errors import CannotCompare, CannotConvert
from parity.mapping.mapping import Mapping
from parity.reports import consequences, repeated, text
from parity.reports.rows import Row

SCHEMA = "parity-report/1"

EXIT_EQUAL, EXIT_MISMATCH, EXIT_COULD_NOT_RUN, EXIT_NOT_EXERCISED = 0, 1, 2, 3


class Found(Protocol):
    """What a comparison knows of the two models' weights."""

    def concluded(self, **comparison: str) -> Mapping:
        """The mapping, with what became of the comparison."""
        ...


@dataclass
class Report:
    """The outcome of a comparison.

    Attributes:
        rows: one per compared array, in order of execution: forward, end to end, then backward.
        not_exercised: what the inputs or weights left untested, in words.
        settings: how the runs were made (precision flags, seeds, versions).
        arrays: of the worst layer: name to array.
        arrays_of: the row that they belong to.
        found: what the mapping is made from; None of reports that aren't of two models alone.
    """

    rows: list[Row]
    not_exercised: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray] = field(default_factory=dict)
    arrays_of: Row | None = None
    found: Found | None = field(default=None, repr=False, compare=False)

    @property
    def mapping(self) -> Mapping:
        """How PyTorch's weights became JAX's in this comparison; see `parity.Mapping`.

        Raises:
            CannotConvert: the models' weights don't fit, or this report is of no single pair of models.
        """
        if self.found is None:
            raise CannotConvert("this report has no mapping: parity.compare finds one, of two models")
        return self.found.concluded(verdict=self.verdict, dtype=str(self.settings.get("dtype", "")))

    @property
    def verdict(self) -> str:
        """The exit code in a word: equal, different or open."""
        return {EXIT_EQUAL: "equal", EXIT_MISMATCH: "different"}.get(self.exit_code, "open")

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
    def follows(self) -> dict[int, int]:
        """Places in `rows` of the divergences that follow from an earlier one, each with the place of that."""
        return consequences.consequences(self.rows)

    @property
    def divergences(self) -> list[Row]:
        """What diverges by itself: one row for each bug, in order of execution, without what follows from it."""
        follows = self.follows
        return [row for i, row in enumerate(self.rows) if row.diverges and i not in follows]

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
        """The report as plain types; see SCHEMA for its version.

        `layers` holds every row; `consequence_of` is the place among them of the divergence that a row follows from.
        """
        first, follows = self.first_divergence, self.follows
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
            "layers": [row.as_json() | {"consequence_of": follows.get(i)} for i, row in enumerate(self.rows)],
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Report:
        """The report that `as_json` wrote; infinite numbers, which JSON can't hold, come back where they were null.

        Raises:
            CannotCompare: another version of this program wrote it.
        """
        if plain.get("schema") != SCHEMA:
            raise CannotCompare(f"this report has schema {plain.get('schema')!r}, this program reads {SCHEMA!r}")
        rows, known = [], {each.name for each in fields(Row)}
        for entry in plain["layers"]:
            values = {key: value for key, value in entry.items() if key in known}
            values["shape"] = tuple(entry["shape"])
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
        return "\n".join(text.table(self.rows))

    def text(self, all_rows: bool = False) -> str:
        """What differs, with its causes; the modules, with all that is equal folded; and what follows from it.

        Args:
            all_rows: a line for every comparison instead of the modules, and every divergence for itself.
        """
        return "\n".join([self.body(all_rows), "", *self.outcome()])

    def body(self, all_rows: bool = False) -> str:
        """`text` without its last lines."""
        found = self.findings(all_rows)
        shown = text.table(self.rows) if all_rows else text.tree(self.rows, self.follows)
        return "\n".join([*found, *([""] if found else []), *shown])

    def __str__(self) -> str:
        return self.text()

    def conclusion(self) -> list[str]:
        """What was found, in words: divergences with their causes, what was not exercised, or that all is equal."""
        return [*self.findings(), *self.outcome()]

    def findings(self, all_rows: bool = False) -> list[str]:
        """What differs, in order of execution, with causes, values and what follows from it.

        Args:
            all_rows: tell every divergence for itself; else one cause at many places is told at the first.
        """
        lines, first = [], self.first_divergence
        following: dict[int, list[Row]] = {}  # by the identity of what they follow from
        for place, root in self.follows.items():
            following.setdefault(id(self.rows[root]), []).append(self.rows[place])
        rows = self.divergences
        for row, *others in [[row] for row in rows] if all_rows else repeated.groups(rows):
            lines += text.described(row, "first divergence" if row is first else "also diverges")
            lines += repeated.told(others)
            lines += text.consequences(
                [echo for each in (row, *others) for echo in following.get(id(each), [])], all_rows
            )
        for row in self.without_bound:
            lines += text.described(row, "no bound")
        return lines

    def outcome(self) -> list[str]:
        """The last lines: what was not exercised, and what the comparison as a whole says."""
        lines = [] if self.rows else ["nothing was compared"]
        lines += [f"not exercised: {what}" for what in self.not_exercised]
        worst = max((row.fraction for row in self.rows), default=0.0)
        first = self.first_divergence
        if self.equal:
            lines.append(f"equal: {len(self.rows)} comparisons, at most {text.number(worst)} of a bound used")
        elif first is not None:
            wrong, follow = sum(row.diverges for row in self.rows), len(self.follows)
            echoes = f", {follow} of which follow from others" if follow else ""
            where = f"{first.model}: {first.name}, {first.stage}"
            lines.append(f"different: {wrong} of {len(self.rows)} comparisons{echoes}; the first is {where}")
        elif self.rows:
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
