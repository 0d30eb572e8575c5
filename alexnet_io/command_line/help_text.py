"""What `--help` prints: a command's settings by what they are for, with true defaults, and examples."""

import json
import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from alexnet_io.command_line.flags import Flag

_COLUMN = 30  # where the explanations begin
_WIDEST = 110
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH", list[int]: "[N,...]", list[Path]: "PATH"}


def render(cls: type, program: str, flags: Sequence[Flag], width: int | None = None) -> str:
    """The help of a command.

    Args:
        cls: its dataclass; the docstring describes it. Where it has `EXAMPLES`, pairs of the words after the
            program's name and what they do, these come last; `USAGE` ends the first line.
        program: how it is called.
        flags: its settings.
        width: of the page in characters; the terminal's by default.
    """
    width = width or min(shutil.get_terminal_size().columns - 2, _WIDEST)
    package = re.split("[. ]", program.removeprefix("python -m "))[0]
    shown = [flag for flag in flags if flag.about.get("only", package) == package]
    words = [flag for flag in shown if flag.is_positional]
    usage = " ".join([f"usage: {program} [settings]", *(f"{metavar(flag)} [...]" for flag in words)])
    usage += getattr(cls, "USAGE", "")
    lines = [usage, "", *_wrapped(" ".join((cls.__doc__ or "").split()), width)]
    for title, members in _groups(shown).items():
        lines += ["", f"{title}:"]
        for flag in members:
            where = "; - for standard output" if flag.about.get("writes") == "text" else ""
            lines += _entry(_left(flag), f"{flag.about['help']}{where}{_default(flag)}", width)
    lines += ["", "help:", *_entry("--config FILE", "YAML file with any of these settings; flags win", width)]
    lines += _entry("-h, --help", "show this text and stop", width)
    for arguments, what in getattr(cls, "EXAMPLES", ()):
        lines += ["", "examples:"] if "examples:" not in lines else []
        lines += [f"  {program} {arguments}", *_wrapped(what, width, " " * 6)]
    return "\n".join(lines) + "\n"


def metavar(flag: Flag) -> str:
    """What stands for a setting's value: PATH, N, ..."""
    usual = (
        "NAME"
        if "choices" in flag.about
        else "FILE"
        if "writes" in flag.about
        else _METAVARS.get(flag.kinds[0], "VALUE")
    )
    return flag.about.get("metavar") or usual


def _groups(flags: Sequence[Flag]) -> dict[str, list[Flag]]:
    """Settings by the part that they stand in, in the order in which the parts first come."""
    groups: dict[str, list[Flag]] = {}
    for flag in flags:
        usual = "arguments" if flag.is_positional else "files to write" if "writes" in flag.about else "settings"
        groups.setdefault(flag.about.get("group") or usual, []).append(flag)
    return groups


def _left(flag: Flag) -> str:
    if flag.is_positional:
        return f"{metavar(flag)} [...]"
    if not flag.is_switch:
        return f"{flag.spelling} {metavar(flag)}"
    return flag.spelling if flag.default is False else f"--[no-]{flag.spelling[2:]}"


def _default(flag: Flag) -> str:
    """Where the value comes from if it isn't given, as the end of a line."""
    if flag.default is MISSING or flag.default is False:
        return ""
    words = flag.about.get("unset", "" if flag.default is None else _in_words(flag.default))
    return f" (default: {words})" if words else ""


def _in_words(value: Any) -> str:
    if value is True:
        return "on"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)


def _entry(left: str, right: str, width: int) -> list[str]:
    """A setting and what it means, beside or below it."""
    first, text = f"  {left}", _wrapped(right, width, " " * _COLUMN)
    if len(first) < _COLUMN - 1 and text:
        return [first.ljust(_COLUMN) + text[0].lstrip(), *text[1:]]
    return [first, *text]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width` characters, but never narrower than twenty; words with hyphens stay whole."""
    width = max(width, len(indent) + 20)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
