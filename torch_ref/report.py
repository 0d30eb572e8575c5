"""`python -m torch_ref.report`: all that is to be seen of a run of the reference as one HTML page.

Imports PyTorch when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line import packages
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.settings import parse_given, run_command
from alexnet_io.errors import UserError

PROGRAM = "python -m torch_ref.report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, and return the exit code; what it lacks is no failure, but said."""
    settings, given = parse_given(ReportSettings, PROGRAM, arguments)
    packages.require("torch", by=PROGRAM)
    from alexnet_io.report import command

    if command.check(settings).get("framework") != "torch_ref":
        shown = printable(settings.run)
        raise UserError(f"{shown} is a run of jax_alexnet: python -m jax_alexnet.report {shown}")
    from torch_ref.report_network import TorchNetworks

    return command.write(settings, given, TorchNetworks())


if __name__ == "__main__":
    run_command(main)
