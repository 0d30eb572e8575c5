"""`python -m jax_alexnet.curves`: the learning curves of several runs, of either program, in one picture.

Imports no JAX, and matplotlib when the runs are known to be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse, positional, run_command, setting
from alexnet_io.errors import UserError
from alexnet_io.run.run_description import read_description

if TYPE_CHECKING:
    from alexnet_io.run.metrics import MetricsRow

PROGRAM = "python -m jax_alexnet.curves"
MOST = 6  # colours that can be told apart
_PROGRAMS = {"jax_alexnet": "JAX", "torch_ref": "PyTorch"}


@dataclass(frozen=True)
class CurvesSettings:
    """Draw the losses and accuracies of several runs into one picture, and say where each stands."""

    EXAMPLES: ClassVar = (
        ("runs/cifar_jax runs/cifar_torch", "the same training by both programs"),
        ("runs/* --output rates.png", "as many as six runs"),
    )

    runs: list[Path] = positional(f"directories that training wrote, of either program; at most {MOST}", "RUN")
    output: Path = setting(Path("curves.png"), "the picture", metavar="FILE", writes="binary")

    def __post_init__(self) -> None:
        if len(self.runs) > MOST:
            raise UserError(f"{len(self.runs)} runs were named, and {MOST} can be told apart: name fewer")
        places = [path.expanduser().resolve() for path in self.runs]
        for path, place in zip(self.runs, places, strict=True):
            if places.count(place) > 1:
                raise UserError(f"{printable(path)} is named twice: leave it out once")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and return the exit code."""
    settings = parse(CurvesSettings, PROGRAM, arguments)
    descriptions = [read_description(path) for path in settings.runs]
    output_file.check({flag: settings.output for flag in flags_of(CurvesSettings) if flag.name == "output"})
    from alexnet_io.run.curves_together import draw_together
    from alexnet_io.run.metrics import read_metrics

    labels = labels_of(settings.runs, descriptions)
    rows = {label: read_metrics(path) for label, path in zip(labels, settings.runs, strict=True)}
    for label, found in rows.items():
        if not found:
            raise UserError(f"{label} has no metrics yet: wait for its first ones, or leave it out")
    print("\n".join(where(label, found) for label, found in rows.items()))
    output_file.write_by("--output", settings.output, lambda file: draw_together(rows, file))
    return 0


def labels_of(runs: Sequence[Path], descriptions: Sequence[dict[str, Any]]) -> list[str]:
    """What each run is called: its directory, as far as it tells it from the others, with network and framework."""
    places = [path.expanduser().resolve() for path in runs]
    short = len({place.name for place in places}) == len(places)
    shown = [printable(place.name if short else place) for place in places]
    facts = [(each["model"], each.get("framework", "jax_alexnet")) for each in descriptions]
    return [
        f"{name} ({model}, {_PROGRAMS.get(program, program)})"
        for name, (model, program) in zip(shown, facts, strict=True)
    ]


def where(label: str, rows: Sequence["MetricsRow"]) -> str:
    """Where a run stands, in a line: the last row of each split."""
    last = {row.split: row for row in rows}
    told = [
        f"{split}: loss {row.loss:.4f}" + (f", top-1 {row.top1:.2%}" if row.top1 is not None else "")
        for split, row in last.items()
    ]
    return f"{label}: {max(row.epoch for row in rows):.4g} epochs; " + "; ".join(told)


if __name__ == "__main__":
    run_command(main)
