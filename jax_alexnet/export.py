"""`python -m jax_alexnet.export`: a trained network as one file, of weights or as a program for other runtimes.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line.export_settings import checked_format
from alexnet_io.command_line.network_source import check_source
from alexnet_io.command_line.settings import parse_given, run_command
from jax_alexnet.export_settings import FORMATS, PROGRAM, ExportSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, say where the file is, and return the exit code."""
    settings, given = parse_given(ExportSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    chosen = checked_format(settings, settings.format, given, FORMATS)
    from jax_alexnet.files.exporting import export

    export(settings, chosen)
    return 0


if __name__ == "__main__":
    run_command(main)
