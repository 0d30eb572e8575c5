"""`python -m jax_alexnet.evaluate`: count every example of a data set once and say how well a run does.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line import output_file
from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.network_source import check_source
from alexnet_io.command_line.settings import parse_given, run_command
from alexnet_io.errors import UserError

PROGRAM = "python -m jax_alexnet.evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the report, and return the exit code."""
    settings, given = parse_given(EvaluateSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    if settings.weights is not None and "data" not in given:
        raise UserError("--weights needs --data SOURCE, such as --data folder:PATH: the file has no pictures")
    from jax_alexnet.evaluate_command import evaluate_command

    with output_file.others_on_standard_error(settings.json):
        evaluate_command(settings, given)
    return 0


if __name__ == "__main__":
    run_command(main)
