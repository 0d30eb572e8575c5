"""What a command prints of its report, and the files of it that were asked for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from alexnet_io.command_line import output_file
from parity.reports import html
from parity.reports.report import Report


def show(part: Report, chosen: Any) -> None:
    """Print what differs in a part of a report, and its modules or with `--all` its comparisons."""
    print(f"{part.body(chosen.all)}\n", flush=True)


def finish(report: Report, chosen: Any) -> int:
    """Print the last lines, write the files that were asked for; returns the exit code."""
    print("\n".join(report.outcome()))
    print(", ".join(f"{key} {value}" for key, value in report.settings.items()))
    if chosen.json:
        output_file.write_by("--json", chosen.json, report.write_json)
    if chosen.html:
        output_file.write_by("--html", chosen.html, lambda file: html.write(report, file))
    if getattr(chosen, "arrays", None) and report.arrays:
        arrays = io.BytesIO()
        np.savez(arrays, **report.arrays)  # type: ignore[arg-type]
        output_file.write("--arrays", chosen.arrays, arrays.getvalue())
    return report.exit_code
