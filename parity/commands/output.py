"""What a command prints of its report, and the files of it that were asked for."""

from __future__ import annotations

import io
from typing import Protocol

from alexnet_io.command_line import output_file
from parity.comparison.store import write_npz
from parity.reports import html
from parity.reports.report import Report


class Shown(Protocol):
    """Settings of a command that prints a report."""

    @property
    def all(self) -> bool:
        """Whether every comparison is printed."""
        ...


class Written(Protocol):
    """Settings of a command that writes its report into files."""

    @property
    def json(self) -> str | None:
        """Where it goes as JSON, if anywhere."""
        ...

    @property
    def html(self) -> str | None:
        """Where it goes as a page, if anywhere."""
        ...


def show(part: Report, chosen: Shown) -> None:
    """Print what differs in a part of a report, and its modules or with `--all` its comparisons."""
    print(f"{part.body(chosen.all)}\n", flush=True)


def finish(report: Report, chosen: Written, arrays: str | None = None) -> int:
    """Print the last lines, write the files that were asked for; returns the exit code.

    Args:
        report: the whole.
        chosen: the command's settings.
        arrays: where the worst layer's arrays go, if anywhere.
    """
    print("\n".join(report.outcome()))
    print(", ".join(f"{key} {value}" for key, value in report.settings.items()))
    if chosen.json:
        output_file.write_by("--json", chosen.json, report.write_json)
    if chosen.html:
        output_file.write_by("--html", chosen.html, lambda file: html.write(report, file))
    if arrays and report.arrays:
        content = io.BytesIO()
        write_npz(content, report.arrays)
        output_file.write("--arrays", arrays, content.getvalue())
    return report.exit_code
