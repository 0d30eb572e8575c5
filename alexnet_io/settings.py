"""Command lines made from frozen dataclasses: flags, YAML in and out, nearest names for misspelt flags.

Importing this module and parsing load no framework, so `--help` and a misspelt flag answer at once.
"""

import dataclasses
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from alexnet_io.errors import UserError

T = TypeVar("T")


def setting(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field with its help text; `extra` may hold `choices`, `minimum`, `above`, `maximum`, `below`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help, **extra})
    return field(default=default, metadata={"help": help, **extra})


def positional(help: str) -> Any:
    """A dataclass field filled by the words without a flag; at least one is needed."""
    return field(metadata={"help": help, "positional": True})


@dataclass(frozen=True)
class _Flag:
    name: str
    hint: Any
    field: Field

    @property
    def spelling(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.hint is bool or set(get_args(self.hint)) == {bool, type(None)}


def parse(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> T:
    """Settings of type `cls` from the command line; see `parse_given`."""
    return parse_given(cls, program, arguments)[0]


def parse_given(cls: type[T], program: str, arguments: Sequence[str] | None = None) -> tuple[T, dict[str, Any]]:
    """Settings of type `cls` from the command line and, of those, the ones that were given; or exit.

    Exits with 0 after `--help`, and with 2 and one line on standard error for an unknown flag (the nearest
    name is given), a value of the wrong type, or a value that `cls` itself refuses with a UserError.

    Args:
        cls: a frozen dataclass whose fields come from `setting` or `positional`.
        program: how the command is called, such as `python -m jax_alexnet.train`.
        arguments: the words after the program's name; `sys.argv` if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = _flags(cls)
    parser = _parser(cls, program, flags)
    _refuse_unknown(parser, flags, words)
    words = _with_dashes(words)
    values = parser.values(words, defaults=True)
    values = {flag.name: values.get(flag.name) for flag in flags}
    given = parser.values(words, defaults=False)
    try:
        for flag in flags:
            _check(flag, values[flag.name])
        return cls(**values), {name: values[name] for name in given if name in values}
    except UserError as error:
        parser.error(str(error))
        raise  # never reached: the line above exits


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
    """Run a command line: a UserError becomes one line on standard error and exit code 1; no traceback."""
    import os

    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        # The reader went away; keep the interpreter from complaining about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def nearest(word: str, valid: Sequence[str]) -> str:
    """`; did you mean X` for the valid name nearest to `word`, or nothing when none is near."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}" if close else ""


def one_of(name: str, value: str, valid: Sequence[str]) -> None:
    """Refuse a value that isn't among the valid ones, naming them and the nearest."""
    if value not in valid:
        raise UserError(f"{name} {value!r} is not known{nearest(value, valid)}. Choose from: {', '.join(valid)}")


def _flags(cls: type) -> list[_Flag]:
    hints = get_type_hints(cls)
    return [_Flag(item.name, hints[item.name], item) for item in dataclasses.fields(cls)]


def _parser(cls: type, program: str, flags: Sequence[_Flag]) -> Any:
    try:
        import jsonargparse
    except ImportError:
        from alexnet_io.plain_parser import PlainParser

        return PlainParser(program, cls.__doc__, flags, _wanted)

    class Parser(jsonargparse.ArgumentParser):
        def values(self, words: list[str], defaults: bool) -> dict[str, Any]:
            return self.parse_args(words, defaults=defaults).as_dict()

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            print(f"error: {_plain_words(str(message), flags)}", file=sys.stderr)
            print(f"Try: {program} --help", file=sys.stderr)
            sys.exit(2)

    parser = Parser(prog=program, description=cls.__doc__, allow_abbrev=False, print_config=None)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings; flags win")
    for flag in flags:
        metadata = flag.field.metadata
        if metadata.get("positional"):
            parser.add_argument(flag.name, nargs="+", help=metadata["help"])
            continue
        made = flag.field.default_factory
        default = made() if made is not MISSING else flag.field.default
        if flag.is_switch:
            action = jsonargparse.ActionYesNo(no_prefix="no-")
            parser.add_argument(flag.spelling, action=action, default=default, help=metadata["help"])
        else:
            parser.add_argument(flag.spelling, type=flag.hint, default=default, help=metadata["help"])
    return parser


def _plain_words(message: str, flags: Sequence[_Flag]) -> str:
    """The library's message in one line: a bad value by its flag, an unknown YAML key with the nearest."""
    message = " ".join(message.split())
    bad = re.search(r'Parser key "(\w+)".*Given value: (.*)$', message)
    flag = next((flag for flag in flags if bad and flag.name == bad[1]), None)
    if bad and flag:
        return f"{flag.spelling} {bad[2]!r} is not {_wanted(flag.hint)}"
    unknown = re.search(r"Option '([\w-]+)' is not accepted", message)
    if unknown:
        names = [flag.name for flag in flags]
        return f"there is no setting {unknown[1]!r}{nearest(unknown[1], names)}"
    return message


def _wanted(hint: Any) -> str:
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    return " or ".join(words.get(kind, f"of the kind {kind}") for kind in kinds)


def _with_dashes(words: list[str]) -> list[str]:
    """Spell flags with dashes whichever way they came: --batch_size is --batch-size."""
    return [
        re.sub("_", "-", head) + mark + tail if head.startswith("--") else word
        for word in words
        for head, mark, tail in [word.partition("=")]
    ]


def _refuse_unknown(parser: Any, flags: Sequence[_Flag], words: Sequence[str]) -> None:
    known = {flag.spelling for flag in flags if not flag.field.metadata.get("positional")} | {"--config", "--help"}
    known |= {"--no-" + flag.spelling[2:] for flag in flags if flag.is_switch}
    for word in words:
        if word == "--":
            return
        name = re.sub("_", "-", word.partition("=")[0])
        if name.startswith("--") and name not in known:
            parser.error(f"there is no {word.partition('=')[0]}{nearest(name, sorted(known))}")


def _check(flag: _Flag, value: Any) -> None:
    """Hold a value to the choices and limits that its field states."""
    metadata = flag.field.metadata
    if value is None:
        return
    if "choices" in metadata:
        one_of(flag.spelling, value, metadata["choices"])
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
            if key in metadata and fails(number, metadata[key]):
                raise UserError(f"{flag.spelling} {number} is out of range: it must be {words} {metadata[key]}")
