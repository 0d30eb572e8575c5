"""What experiments found: one record each, merged over calls into a table, as JSON and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file
from jax_alexnet.reproduce.experiments import EXPERIMENTS

RESULTS, TABLE = "results.json", "results.md"
FORMAT = 1


@dataclass(frozen=True)
class Result:
    """What one experiment found.

    Attributes:
        experiment: key of `EXPERIMENTS`.
        subject: the data, or the run that was looked at.
        measured: the figure to stand beside the published one, in words.
        n: repetitions.
        columns: of `rows`.
        rows: the figures behind `measured`.
        notes: what a reader must know to compare.
        pictures: files beside the table.
        values: figures for programs.
        about: when, with which command, on what.
    """

    experiment: str
    subject: str
    measured: str
    n: int
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A later result under the same key takes this one's place."""
        return f"{self.experiment} on {self.subject}"


def read(folder: Path) -> list[Result]:
    """All results so far, in the order of `EXPERIMENTS`.

    Raises:
        UserError: the file is damaged, or another version's.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    shown = printable(path)
    remedy = "move it away, and the finished runs will be read again"
    with atomic_file.naming_the_path("read", path):
        content = path.read_bytes()
    names = {item.name for item in fields(Result)}
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise UserError(f"{shown} has format {document['format']!r}, this version reads {FORMAT}: {remedy}")
        found = [Result(**{k: v for k, v in each.items() if k in names}) for each in document["results"]]
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{shown} is damaged ({error}): {remedy}") from None
    order = list(EXPERIMENTS)
    if any(result.experiment not in order for result in found):
        raise UserError(f"{shown} has experiments that this version doesn't know: {remedy}")
    return sorted(found, key=lambda result: (order.index(result.experiment), result.subject))


def merge(folder: Path, result: Result) -> list[Result]:
    """Put a result in its place among the earlier ones and write them all; returns them.

    Raises:
        UserError: see `read`; or the table can't be written.
    """
    others = [each for each in read(folder) if each.key != result.key]
    order = list(EXPERIMENTS)
    every = sorted([*others, result], key=lambda each: (order.index(each.experiment), each.subject))
    atomic_file.write_json(folder / RESULTS, {"format": FORMAT, "results": [asdict(each) for each in every]})
    atomic_file.write_text(folder / TABLE, markdown(every))
    return every


def markdown(results: Sequence[Result], heading: str = "Reproduced") -> str:
    """The table, and the figures behind each of its rows."""
    summary = [
        [
            each.experiment,
            each.subject,
            EXPERIMENTS[each.experiment].claim,
            EXPERIMENTS[each.experiment].published,
            each.measured,
            str(each.n),
        ]
        for each in results
    ]
    lines = [f"# {heading}", "", *_table(SUMMARY, summary)]
    for each in results:
        lines += ["", f"## {each.key}", "", *_table(each.columns, each.rows)]
        lines += ["", *(f"* {_cell(note)}" for note in each.notes)] if each.notes else []
        lines += ["", *(f"![{each.experiment}]({name})" for name in each.pictures)] if each.pictures else []
        lines += ["", f"`{_words(each.about)}`"] if each.about else []
    return "\n".join(lines) + "\n"


SUMMARY = ["experiment", "on", "claim", "published", "measured here", "n"]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in (columns, ["---"] * len(columns), *rows)]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _words(about: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in about.items()).replace("`", "'")
