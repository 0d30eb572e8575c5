"""`python -m jax_alexnet.report`: all that is to be seen of a run, of either program, as one HTML page.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.settings import parse_given, run_command

PROGRAM = "python -m jax_alexnet.report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, and return the exit code; what it lacks is no failure, but said."""
    settings, given = parse_given(ReportSettings, PROGRAM, arguments)
    from alexnet_io.report import command

    command.check(settings)
    from jax_alexnet.report_network import JaxNetworks

    return command.write(settings, given, JaxNetworks())


if __name__ == "__main__":
    run_command(main)
