"""Prove a network of JAX equal to one of PyTorch, this project's or yours, or name what differs.

Exit codes: 0 equal, 1 mismatch, 2 could not run, 3 equal as far as it was exercised.
"""

import sys
from functools import partial

from alexnet_io.command_line import command_list, completion
from alexnet_io.command_line.called import VERSION, version_line
from alexnet_io.command_line.settings import run_command
from alexnet_io.errors import FailedRun, UserError
from parity.commands import table
from parity.errors import CannotCompare
from parity.settings import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        what, _, codes = (__doc__ or "").partition("\n\n")
        print(command_list.listing("python -m parity COMMAND", what, COMMANDS, codes.strip()))
        return 0
    if words == [VERSION]:
        print(version_line())
        return 0
    if completion.is_asked(words):
        runs = {name: partial(table.run, name, []) for name in COMMANDS}
        print(completion.script("parity", words, runs))
        return 0
    if words[0] not in COMMANDS:
        return command_list.unknown("python -m parity", words[0], COMMANDS)
    try:
        return table.run(words[0], words[1:])
    except (CannotCompare, FailedRun) as error:
        raise UserError(str(error)) from None  # exit code 2: 1 is a mismatch here


def console() -> None:
    """The installed command."""
    run_command(main)


if __name__ == "__main__":
    console()
