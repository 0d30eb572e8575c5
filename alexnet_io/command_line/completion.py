"""`--print-completion SHELL`: a script by which a shell completes a package's commands, their flags and values.

shtab, which is imported for that alone, writes it from argparse's parsers: those that the commands parse with.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alexnet_io.command_line import packages
from alexnet_io.command_line.called import CONSOLES
from alexnet_io.command_line.parser import CONFIG, CommandParser
from alexnet_io.command_line.settings import parser_of
from alexnet_io.errors import UserError

FLAG = "--print-completion"
SHELLS = ("bash", "zsh", "tcsh")


def is_asked(words: Sequence[str]) -> bool:
    """Whether the words after a package's name ask for such a script."""
    return bool(words) and words[0].partition("=")[0] == FLAG


def script(package: str, words: Sequence[str], commands: Mapping[str, Callable[[], object]]) -> str:
    """The script.

    Args:
        package: whose commands these are.
        words: after the package's name, from `FLAG` on.
        commands: what runs each.

    Raises:
        UserError: no shell that there is, or shtab isn't installed.
    """
    _, mark, value = words[0].partition("=")
    shells = [value, *words[1:]] if mark else list(words[1:])
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise UserError(f"{FLAG} needs one of {', '.join(SHELLS)}, as in {CONSOLES[package]} {FLAG} bash")
    packages.require("shtab", by=FLAG)
    import shtab

    return shtab.complete(_whole(package, commands), shells[0])


def _whole(package: str, commands: Mapping[str, Callable[[], object]]) -> argparse.ArgumentParser:
    """One parser with a subparser for each command of the installed program: a shell completes no `python -m`."""
    import shtab

    whole = argparse.ArgumentParser(CONSOLES[package], allow_abbrev=False)
    whole.add_argument(FLAG, choices=SHELLS, help="print a script that completes commands, flags and values")
    below = whole.add_subparsers()
    below.required = True
    for name, command in commands.items():
        parser = parser_of(command)
        for action in parser._actions:
            _with_values(parser, action, {"file": shtab.FILE, "folder": shtab.DIRECTORY})
        # shtab reads one line of what a command does.
        below.add_parser(
            name, parents=[parser], add_help=False, help=(parser.description or "").partition(".")[0].replace("\n", " ")
        )
    return whole


def _with_values(parser: CommandParser, action: argparse.Action, kinds: Mapping[str, object]) -> None:
    """Say of a flag what its values may be: its choices, or files or folders."""
    flag = next((each for each in parser.flags if each.name == action.dest), None)
    if flag is None:
        if action.dest == CONFIG:
            action.complete = kinds["file"]  # type: ignore[attr-defined]
        return
    if "choices" in flag.about:
        action.choices = [str(choice) for choice in flag.about["choices"]]
    elif (
        "writes" in flag.about or Path in flag.kinds or list[Path] in flag.kinds or flag.about.get("metavar") == "FILE"
    ):
        action.complete = kinds["folder" if flag.about.get("metavar") == "DIR" else "file"]  # type: ignore[attr-defined]
