"""What `--help` prints: argparse's page of a command, by what its settings are for, with true defaults and examples."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from alexnet_io.command_line.called import as_called
from alexnet_io.command_line.flags import Flag

_COLUMN = 30  # where the explanations begin
_WIDEST, _NARROWEST = 110, _COLUMN + 20
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """argparse's, with explanations in one column, `--[no-]x` for switches, and names with hyphens whole.

    Args:
        prog: how the command is called.
        flags: its settings, by name.
        width: of the page in characters; the terminal's by default.
    """

    def __init__(self, prog: str, flags: dict[str, Flag], width: int | None = None) -> None:
        super().__init__(prog, max_help_position=_COLUMN, width=page_width(width))
        self._flags = flags

    def _format_action_invocation(self, action: argparse.Action) -> str:
        flag = self._flags.get(action.dest)
        if flag is None or not flag.is_switch:
            return super()._format_action_invocation(action)
        return flag.spelling if flag.default is False else f"--[no-]{flag.spelling[2:]}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def page_width(width: int | None = None) -> int:
    """Characters of a line: as asked for, or the terminal's; lines too long or too short to read aside."""
    return max(width or min(shutil.get_terminal_size().columns - 2, _WIDEST), _NARROWEST)


def usage(cls: type, program: str, flags: Sequence[Flag]) -> str:
    """How a command is called, in a line; `USAGE` of its dataclass ends it."""
    words = [words_of(flag) for flag in flags if flag.is_positional]
    return " ".join([as_called(program), "[settings]", *words]) + getattr(cls, "USAGE", "")


def description(cls: type, width: int | None = None) -> str:
    """What a command does: the docstring of its dataclass."""
    return textwrap.fill(" ".join((cls.__doc__ or "").split()), page_width(width), break_on_hyphens=False)


def examples(cls: type, program: str, width: int | None = None) -> str:
    """The `EXAMPLES` of a command's dataclass: pairs of the words after the program's name, and what they do."""
    lines = ["examples:"]
    for words, what in getattr(cls, "EXAMPLES", ()):
        indent = " " * 6
        # Broken as a shell allows it, so that it can be copied.
        command = textwrap.wrap(
            f"{as_called(program)} {words}", page_width(width) - 8, break_on_hyphens=False, break_long_words=False
        )
        lines += ["  " + " \\\n      ".join(command)]
        lines += textwrap.wrap(
            what, page_width(width), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
    return "\n".join(lines) if len(lines) > 1 else ""


def metavar(flag: Flag) -> str:
    """What stands for a setting's value: PATH, N, ...; what a shell would take for a pattern is in quotes."""
    if flag.about.get("metavar"):
        return flag.about["metavar"]
    if "choices" in flag.about:
        return "NAME"
    if "writes" in flag.about:
        return "FILE"
    return _METAVARS.get(flag.kinds[0], "'[N,...]'")


def words_of(flag: Flag) -> str:
    """What stands for the words without a flag: FILE [...], or RUN where there is one."""
    return metavar(flag) if flag.about.get("single") else f"{metavar(flag)} [...]"


def group(flag: Flag) -> str:
    """The part of the page that a setting stands in."""
    usual = "arguments" if flag.is_positional else "files to write" if "writes" in flag.about else "settings"
    return flag.about.get("group") or usual


def entry(flag: Flag, program: str) -> str:
    """What a setting means, and where its value comes from if it isn't given; SUPPRESS if another package's."""
    package = re.split("[. ]", program.removeprefix("python -m "))[0]
    if flag.about.get("only", package) != package:
        return argparse.SUPPRESS
    where = "; - for standard output" if flag.about.get("writes") == "text" else ""
    return f"{flag.about['help']}{where}{_default(flag)}".replace("%", "%%")


def _default(flag: Flag) -> str:
    if flag.default is MISSING or flag.default is False or flag.is_positional:
        return ""
    words = flag.about.get("unset", "" if flag.default is None else _in_words(flag.default))
    return f" (default: {words})" if words else ""


def _in_words(value: Any) -> str:
    if value is True:
        return "on"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "'[" + ",".join(map(str, value)) + "]'" if isinstance(value, list) else str(value)
