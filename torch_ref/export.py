"""`python -m torch_ref.export`: a trained network of the reference as one file, of weights or as a program.

Imports PyTorch when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line import packages
from alexnet_io.command_line.export_settings import checked_format
from alexnet_io.command_line.network_source import check_source
from alexnet_io.command_line.settings import parse_given, run_command
from torch_ref.export_settings import FORMATS, PROGRAM, ExportSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, say where the file is, and return the exit code."""
    settings, given = parse_given(ExportSettings, PROGRAM, arguments)
    packages.require("torch", by=PROGRAM)
    check_source(settings.run, settings.weights, given)
    chosen = checked_format(settings, settings.format, given, FORMATS, "onnxscript")
    from torch_ref.exporting import export

    export(settings, chosen)
    return 0


if __name__ == "__main__":
    run_command(main)
