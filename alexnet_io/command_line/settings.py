"""Command lines made from frozen dataclasses: flags, YAML in and out, nearest names for misspelt flags.

Importing this module and parsing load no framework, so `--help` and a misspelt flag answer at once.
"""

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from alexnet_io.command_line import help_text, output_file, packages
from alexnet_io.command_line.flags import Flag, flags_of, positional, setting, spellings
from alexnet_io.command_line.plain_parser import PlainParser
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.suggestions import nearest, nearest_setting
from alexnet_io.errors import FailedRun, UserError

__all__ = ["as_yaml", "nearest", "one_of", "parse", "parse_given", "positional", "run_command", "setting"]

T = TypeVar("T")
FAILED, REFUSED = 1, 2  # exit codes: something went wrong on the way; nothing was begun


def parse(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> T:
    """Settings of type `cls` from the command line; see `parse_given`."""
    return parse_given(cls, program, arguments)[0]


def parse_given(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> tuple[T, dict[str, Any]]:
    """Settings of type `cls` from the command line and, of those, the ones that were given; or exit.

    Exits with 0 after `--help`, and with 2 and one line on standard error for an unknown flag (the nearest
    name is given), a value of the wrong type, a value that `cls` itself refuses with a UserError, or a file to be
    written where none can be.

    Args:
        cls: a frozen dataclass whose fields come from `setting` or `positional`.
        program: how the command is called, such as `python -m jax_alexnet.train`.
        arguments: the words after the program's name; `sys.argv` if None.
    """

    def refuse(message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        print(f"Try: {program} --help", file=sys.stderr)
        sys.exit(REFUSED)

    flags = flags_of(cls)
    words = _with_dashes(list(sys.argv[1:] if arguments is None else arguments))
    try:
        if not {"--help", "-h"} & set(words):
            _check_words(flags, words)
        parser = _parser(flags, help_text.render(cls, program, flags), refuse)
        values = parser.values(words, defaults=True)
        values = {flag.name: values.get(flag.name) for flag in flags}
        given = parser.values(words, defaults=False)
        for flag in flags:
            _check(flag, values[flag.name])
        output_file.check({flag: values[flag.name] for flag in flags if "writes" in flag.about})
        return cls(**values), {name: values[name] for name in given if name in values}
    except UserError as error:
        refuse(str(error))


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
    the way.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED if isinstance(error, FailedRun) else REFUSED
    except ImportError as error:
        missing = packages.missing_in(error)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        code = REFUSED
    except BrokenPipeError:
        # The reader went away; keep the interpreter from complaining about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def one_of(name: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value that isn't among the valid ones, naming them and the nearest."""
    if value not in valid:
        raise UserError(f"{name} {value!r} is not known{nearest(value, valid)}. Choose from: {', '.join(valid)}")


def _parser(flags: Sequence[Flag], shown: str, refuse: Callable[[str], NoReturn]) -> Any:
    try:
        import jsonargparse
    except ImportError:
        return PlainParser(flags, shown, refuse)

    class Parser(jsonargparse.ArgumentParser):
        def values(self, words: list[str], defaults: bool) -> dict[str, Any]:
            return self.parse_args(words, defaults=defaults).as_dict()

        def format_help(self) -> str:
            return shown

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            refuse(_plain_words(str(message), flags))

    parser = Parser(allow_abbrev=False, print_config=None)
    parser.add_argument("--config", action="config")
    for flag in flags:
        if flag.is_positional:
            parser.add_argument(flag.name, nargs="+", type=get_args(flag.hint)[0])
        elif flag.is_switch:
            action = jsonargparse.ActionYesNo(no_prefix="no-")
            parser.add_argument(flag.spelling, action=action, default=flag.default)
        else:
            parser.add_argument(flag.spelling, type=flag.hint, default=flag.default)
    return parser


def _plain_words(message: str, flags: Sequence[Flag]) -> str:
    """The library's message in one line: a bad value by its flag, an unknown YAML key with the nearest."""
    message = " ".join(message.split())
    bad = re.search(r'Parser key "(\w+)".*Given value: (.*)$', message)
    flag = next((flag for flag in flags if bad and flag.name == bad[1]), None)
    if bad and flag:
        return f"{flag.spelling} {bad[2]!r} is not {flag.wanted}"
    unknown = re.search(r"Option '([\w-]+)' is not accepted", message)
    if unknown:
        near = nearest_setting(unknown[1], [flag.name for flag in flags])
        return f"there is no setting {unknown[1]!r}{f'; did you mean {near}' if near else ''}"
    message = re.sub("^Problems parsing config: ", "--config can't be read as YAML: ", message)
    return re.sub("^Unexpected config: ", "--config must hold settings, one a line as NAME: VALUE, not ", message)


def _with_dashes(words: list[str]) -> list[str]:
    """Spell flags with dashes whichever way they came: --batch_size is --batch-size. After `--` come no flags."""
    end = words.index("--") if "--" in words else len(words)
    return [
        re.sub("_", "-", head) + mark + tail if head.startswith("--") else word
        for word in words[:end]
        for head, mark, tail in [word.partition("=")]
    ] + words[end:]


def _check_words(flags: Sequence[Flag], words: Sequence[str]) -> None:
    """Refuse words that are no flags and no flags' values, before a parser says it in its own way."""
    known = spellings(flags)
    valued = {flag.spelling: flag.wanted for flag in flags if not flag.is_switch} | {"--config": "a YAML file"}
    has_words = any(flag.is_positional for flag in flags)
    before, found = "", False
    for index, word in enumerate(words):
        if word == "--":
            found = found or index + 1 < len(words)
            break
        head, mark, tail = word.partition("=")
        value_of, before = before, ""
        if value_of and not word.startswith("--"):
            _check_config(value_of, word)
        elif value_of:
            raise UserError(f"{value_of} needs a value: {valued[value_of]}")
        elif re.match("-+[A-Za-z]", word):
            if head not in known:
                raise UserError(f"there is no {head}{_did_you_mean(head, flags)}")
            if mark and head not in valued:
                raise UserError(f"{head} takes no value: write {head} or {_opposite(head)}")
            _check_config(head, tail)
            before = head if head in valued and not mark else ""
        elif not has_words:
            raise UserError(f"{printable(word)!r} belongs to no setting: settings look like --name VALUE")
        else:
            found = True
    if before:
        raise UserError(f"{before} needs a value: {valued[before]}")
    if has_words and not found:
        name = next(flag.name for flag in flags if flag.is_positional)
        raise UserError(f"{name} are missing: name at least one")


def _check_config(flag: str, file: str) -> None:
    if flag == "--config" and file and not Path(file).is_file():
        raise UserError(f"--config {printable(file)} is not a file: pass a YAML file of settings")


def _did_you_mean(word: str, flags: Sequence[Flag]) -> str:
    """`; did you mean --X`, or nothing where no setting is near; with the same `no-` in front."""
    negated = word.startswith("--no-")
    names = [flag.name for flag in flags if not flag.is_positional and (flag.is_switch or not negated)]
    near = nearest_setting(word.removeprefix("--no-") if negated else word, [*names, *([] if negated else ["config"])])
    return f"; did you mean --{'no-' if negated else ''}{near.replace('_', '-')}" if near else ""


def _opposite(switch: str) -> str:
    return f"--{switch[5:]}" if switch.startswith("--no-") else f"--no-{switch[2:]}"


def _check(flag: Flag, value: Any) -> None:
    """Hold a value to the choices and limits that its field states."""
    if value is None:
        return
    if "choices" in flag.about:
        one_of(flag.spelling, value, flag.about["choices"])
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not math.isfinite(number):
            raise UserError(f"{flag.spelling} {number} must be a finite number")
        for key, fails, words in (
            ("minimum", lambda x, y: x < y, "at least"),
            ("above", lambda x, y: x <= y, "above"),
            ("maximum", lambda x, y: x > y, "at most"),
            ("below", lambda x, y: x >= y, "below"),
        ):
            if key in flag.about and fails(number, flag.about[key]):
                raise UserError(f"{flag.spelling} {number} is out of range: it must be {words} {flag.about[key]}")
