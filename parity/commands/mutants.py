"""`python -m parity mutants`: planted bugs."""

from __future__ import annotations

from alexnet_io.command_line import output_file
from parity import settings
from parity.mutants import page, pairs_of_bugs
from parity.mutants import trials as single


def mutants(chosen: settings.Mutants) -> int:
    """Plant bugs one at a time, in float64 in pairs, too; returns the exit code."""
    names = chosen.only.split(",") if chosen.only else ()
    score = single.run(
        names, model=chosen.model, dtype=chosen.dtype, show=lambda outcome: print(outcome.line, flush=True)
    )
    if chosen.dtype in ("float64", "all"):
        score.pairs = pairs_of_bugs.run(names, model=chosen.model, show=lambda outcome: print(outcome.line, flush=True))
    print(score.summary)
    if chosen.json:
        output_file.write_by("--json", chosen.json, score.write_json)
    if chosen.html:
        output_file.write_by("--html", chosen.html, lambda file: page.write(score, file))
    return score.exit_code
