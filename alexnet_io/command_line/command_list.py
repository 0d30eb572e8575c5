"""A package's commands: listed by `python -m PACKAGE` or what is installed for it, and run with a name behind."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from alexnet_io.command_line import completion
from alexnet_io.command_line.called import VERSION, as_called, version_line
from alexnet_io.command_line.settings import REFUSED
from alexnet_io.command_line.suggestions import nearest


def run(package: str, what: str, commands: Mapping[str, str], arguments: Sequence[str] | None = None) -> int:
    """List the commands, or run the one that the first word names as `python -m PACKAGE.COMMAND` does.

    Args:
        package: whose modules the commands are.
        what: it is for, in a line.
        commands: names, and what each does in a line.
        arguments: the words after the package's name; `sys.argv` if None.

    Returns:
        The exit code: 0 without a command, since the list is what was asked for; 2 with one that there isn't.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(listing(f"python -m {package}.COMMAND", what, commands))
        return 0
    if words == [VERSION]:
        print(version_line())
        return 0
    if completion.is_asked(words):
        mains = {name: _main(f"{package}.{name}") for name in commands}
        print(completion.script(package, words, mains))
        return 0
    if words[0] not in commands:
        return unknown(f"python -m {package}", words[0], commands)
    sys.argv = [f"{package}.{words[0]}", *words[1:]]
    return _main(f"{package}.{words[0]}")() or 0


def _main(name: str) -> Callable[[], Any]:
    """What runs a command, by the name of its module or package."""
    try:
        module = import_module(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if error.name != f"{name}.__main__":
            raise
        module = import_module(name)
    return module.main


def listing(usage: str, what: str, commands: Mapping[str, str], after: str = "") -> str:
    """What `--help` says: how a command is called, and all of them with what they do."""
    width = max(map(len, commands))
    lines = [f"usage: {as_called(usage)} [--help] [settings]", "", what, ""]
    lines += [f"  {name.ljust(width)}  {does}" for name, does in commands.items()]
    return "\n".join([*lines, *(["", after] if after else [])])


def unknown(program: str, word: str, commands: Mapping[str, str]) -> int:
    """Say that there is no such command, and which is near; returns the exit code."""
    print(f"error: there is no command {word!r}{nearest(word, list(commands))}", file=sys.stderr)
    print(f"Try: {as_called(program)} --help", file=sys.stderr)
    return REFUSED
