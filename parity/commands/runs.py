"""`python -m parity runs`: both training programs, twinned."""

from __future__ import annotations

from alexnet_io.command_line import output_file
from parity import settings
from parity.twins import program


def runs(chosen: settings.Runs) -> int:
    """Twin the cases that were asked for; returns the exit code."""
    twins = program.run(
        chosen.model,
        chosen.recipe,
        chosen.schedule,
        data=chosen.data,
        seed=chosen.seed,
        image_size=chosen.image_size,
        stops=chosen.stops,
        show=lambda outcome: print(outcome, flush=True),
    )
    print("equal" if twins.equal else "DIFFERENT")
    if chosen.json:
        output_file.write_json("--json", chosen.json, twins.to_json())
    return 0 if twins.equal else 1
