"""Command lines made from frozen dataclasses: flags, YAML in and out, nearest names for misspelt flags.

Importing this module and parsing load no framework, so `--help` and a misspelt flag answer at once. PyYAML is imported
where settings are written down.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from alexnet_io.command_line import config_file, output_file, packages
from alexnet_io.command_line.called import as_called
from alexnet_io.command_line.flags import Flag, flags_of, one_of, positional, setting
from alexnet_io.command_line.parser import CONFIG, CommandParser
from alexnet_io.command_line.printing import tolerant_output
from alexnet_io.command_line.suggestions import nearest
from alexnet_io.errors import FailedRun, UserError

__all__ = ["as_yaml", "nearest", "one_of", "parse", "parse_given", "parser_of", "positional", "run_command", "setting"]

T = TypeVar("T")
_asking: list[bool] = []  # not empty while a command is only asked for its parser
FAILED, REFUSED = 1, 2  # exit codes: something went wrong on the way; nothing was begun


def parse(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> T:
    """Settings of type `cls` from the command line; see `parse_given`."""
    return parse_given(cls, program, arguments)[0]


def parse_given(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> tuple[T, dict[str, Any]]:
    """Settings of type `cls` from the command line and, of those, the ones that were given; or exit.

    What a flag says counts; then what a file says that `--config` names, of several the last; then the default.

    Exits with 0 after `--help`, and with 2 and one line on standard error for an unknown flag (the nearest
    name is given), a value of the wrong type, a value that `cls` itself refuses with a UserError, or a file to be
    written where none can be.

    Args:
        cls: a frozen dataclass whose fields come from `setting` or `positional`.
        program: how the command is called, such as `python -m jax_alexnet.train`.
        arguments: the words after the program's name; `sys.argv` if None.
    """
    flags = flags_of(cls)
    parser = CommandParser(cls, program, flags)
    if _asking:
        raise _ParserFoundError(parser)
    try:
        words = parser.words(sys.argv[1:] if arguments is None else arguments)
        given: dict[str, Any] = {}
        for file in words.pop(CONFIG, []):
            given |= config_file.read(file, flags)
        for flag in flags:
            if flag.name in words:
                word = words[flag.name]
                given[flag.name] = word if isinstance(word, bool) else flag.read(word)
        values = {flag.name: given.get(flag.name, flag.default) for flag in flags}
        _refuse_missing(flags, given)
        output_file.check({flag: values[flag.name] for flag in flags if "writes" in flag.about})
        return cls(**values), given
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        print(f"Try: {as_called(program)} --help", file=sys.stderr)
        sys.exit(REFUSED)


class _ParserFoundError(BaseException):
    """Ends a command that is only asked for its parser; nothing on the way may take it for an error of its own."""

    def __init__(self, parser: CommandParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(command: Callable[[], object]) -> CommandParser:
    """The parser of a command, of which nothing else is done.

    Args:
        command: parses its words before it does anything.
    """
    _asking.append(True)
    try:
        command()
    except _ParserFoundError as found:
        return found.parser
    finally:
        _asking.pop()
    raise TypeError(f"{command} parses no settings")


def _refuse_missing(flags: Sequence[Flag], given: dict[str, Any]) -> None:
    for flag in flags:
        if flag.is_positional and not given.get(flag.name):
            raise UserError(f"{flag.name} are missing: name at least one")


def as_yaml(settings: Any) -> str:
    """The settings as YAML that `--config` reads back; fields that are not set are left out."""
    import yaml

    plain = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if value is None or item.metadata.get("action"):
            continue
        plain[item.name] = str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line to its exit code; what a user can mend becomes one line on standard error, no traceback.

    2 for a UserError or a package that isn't installed: nothing was begun. 1 for a FailedRun: something went wrong on
    the way. What the terminal can't show is escaped, and a reader that goes away ends the command quietly.
    """
    try:
        with tolerant_output():
            code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED if isinstance(error, FailedRun) else REFUSED
    except ImportError as error:
        missing = packages.missing_in(error)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        code = REFUSED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
