"""The flags of a command, read off the fields of its frozen dataclass. Imports no framework."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from alexnet_io.command_line.suggestions import nearest
from alexnet_io.errors import UserError

_SWITCH_WORDS = {word: word in ("true", "yes", "on") for word in ("true", "yes", "on", "false", "no", "off")}
_LIMITS = (
    ("minimum", lambda value, limit: value >= limit, "at least"),
    ("above", lambda value, limit: value > limit, "above"),
    ("maximum", lambda value, limit: value <= limit, "at most"),
    ("below", lambda value, limit: value < limit, "below"),
)


def setting(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field with its help text.

    Args:
        default: of the field; lists are copied.
        help: what it means, in a line or two.
        extra: any of
            `choices`, `minimum`, `above`, `maximum`, `below`: what values are valid.
            `group`: the part of `--help` that it stands in.
            `metavar`: what stands for its value there; made from the type by default.
            `unset`: where its value comes from if it isn't given, in words; the default if left out.
            `action`: True for a switch that asks for something to be done; it isn't kept with a run's settings.
            `only`: the package whose commands alone have it.
            `single`: True for a word without a flag of which there is one.
            `writes`: `text` or `binary`, for a file that the command writes.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help, **extra})
    return field(default=default, metadata={"help": help, **extra})


def positional(help: str, metavar: str = "") -> Any:
    """A dataclass field filled by the words without a flag; at least one is needed."""
    return field(metadata={"help": help, "positional": True, "metavar": metavar})


@dataclass(frozen=True)
class Flag:
    """One setting of a command.

    Attributes:
        name: of the dataclass's field.
        hint: its type.
        field: where `setting` left what is known of it.
    """

    name: str
    hint: Any
    field: Field[Any]

    @property
    def spelling(self) -> str:
        """As the command line has it; the name alone for what has no flag."""
        return self.name if self.is_positional else "--" + self.name.replace("_", "-")

    @property
    def about(self) -> Any:
        """What `setting` was given."""
        return self.field.metadata

    @property
    def is_positional(self) -> bool:
        """Whether it is filled by the words without a flag."""
        return bool(self.about.get("positional"))

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: --X or --no-X."""
        return self.kinds == (bool,)

    @property
    def default(self) -> Any:
        """The value if it isn't given; MISSING if it must be."""
        made = self.field.default_factory
        return made() if made is not MISSING else self.field.default

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that a value may have, without None."""
        whole = () if get_origin(self.hint) is list else get_args(self.hint)
        return tuple(kind for kind in whole or (self.hint,) if kind is not type(None))

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
        # Brackets in quotes, since a shell would take them for a pattern of files' names.
        several = {
            list[int]: "whole numbers such as [3,5], in quotes",
            list[float]: "numbers such as [0.1,0.2], in quotes",
            list[Path]: "paths",
        }
        return " or ".join((words | several).get(kind, f"of the kind {kind}") for kind in self.kinds)

    def read(self, given: Any) -> Any:
        """The value that words stand for, from the command line or from a file of settings.

        Args:
            given: a word, several for a list, or None; for a setting without a flag always several.

        Raises:
            UserError: it isn't what the setting takes, not among its choices, or out of its range.
        """
        if given is None or given == "null":
            if type(None) in get_args(self.hint):
                return None
        elif given == "":
            raise UserError(f"{self.spelling} needs a value: {self.wanted}")
        for kind in self.kinds:
            try:
                value = _read(kind, given)
            except (ValueError, TypeError, RecursionError):
                continue
            self.check(value)
            return value
        shown = "null" if given is None else repr(given)
        raise UserError(f"{self.spelling} {shown} is not {self.wanted}")

    def check(self, value: Any) -> None:
        """Hold a value to the choices and limits that the field states.

        Raises:
            UserError: it names the value and what is valid.
        """
        if "choices" in self.about:
            one_of(self.spelling, value, self.about["choices"])
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not math.isfinite(number):
                raise UserError(f"{self.spelling} {number} must be a finite number")
            for key, holds, words in _LIMITS:
                if key in self.about and not holds(number, self.about[key]):
                    limit = f"it must be {words} {self.about[key]}"
                    raise UserError(f"{self.spelling} {number} is out of range: {limit}")


def one_of(name: str, value: str | int, valid: Sequence[str] | Sequence[int]) -> None:
    """Refuse a value that isn't among the valid ones, naming them and the nearest."""
    if value not in valid:
        words = [str(each) for each in valid]
        raise UserError(f"{name} {value!r} is not known{nearest(str(value), words)}. Choose from: {', '.join(words)}")


def _read(kind: Any, given: Any) -> Any:
    """A value of one type; ValueError or TypeError if it isn't one."""
    if get_origin(kind) is list:
        values = json.loads(given) if isinstance(given, str) else given
        if not isinstance(values, list):
            raise TypeError
        # JSON's numbers are read as if they were words, so that 3.0 is no more a whole number in a list than alone.
        return [
            _read(get_args(kind)[0], json.dumps(value) if type(value) in (int, float) else value) for value in values
        ]
    if not isinstance(given, str) or not given:
        raise TypeError
    if kind is bool:
        if given.lower() not in _SWITCH_WORDS:
            raise ValueError
        return _SWITCH_WORDS[given.lower()]
    return kind(given)


def flags_of(cls: type) -> list[Flag]:
    """The settings of a command's dataclass, in the order of their fields."""
    hints = get_type_hints(cls)
    return [Flag(item.name, hints[item.name], item) for item in dataclasses.fields(cls)]
