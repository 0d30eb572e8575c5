"""`python -m torch_ref.evaluate`: count every example of a data set once and say how well the reference does.

Imports PyTorch when the settings are known to be right.
"""

from collections.abc import Sequence
from typing import Any

from alexnet_io.command_line import output_file, packages
from alexnet_io.command_line.evaluate_settings import EvaluateSettings, write_report
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse_given, run_command
from alexnet_io.errors import UserError

PROGRAM = "python -m torch_ref.evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the report, and return the exit code."""
    settings, given = parse_given(EvaluateSettings, PROGRAM, arguments)
    packages.require("torch", by=PROGRAM)
    _refuse(settings, given)
    with output_file.others_on_standard_error(settings.json):
        _evaluate(settings, given)
    return 0


def _refuse(settings: EvaluateSettings, given: dict[str, Any]) -> None:
    """Refuse none or two networks, and what only one of the two kinds needs."""
    if (settings.run is None) == (settings.weights is None):
        raise UserError("pass --run DIR, the directory that training wrote (its --output), or --weights FILE, not both")
    if settings.weights is not None and "data" not in given:
        raise UserError("--weights needs --data SOURCE, such as --data folder:PATH: the file has no pictures")
    foreign = "model" if settings.run is not None else "checkpoint"
    if foreign in given:
        source, other = ("--run", "--weights") if foreign == "model" else ("--weights", "--run")
        raise UserError(f"--{foreign} is for {other}: {source} has its own; leave --{foreign} out")


def _evaluate(settings: EvaluateSettings, given: dict[str, Any]) -> None:
    from torch_ref.evaluation import evaluate_command

    found, data = evaluate_command(settings, given)
    what = printable(settings.weights) if settings.weights else f"{found.which} weights, step {found.step}"
    write_report(found.report, settings, data, what)


if __name__ == "__main__":
    run_command(main)
