"""The flags of a command, read off the fields of its frozen dataclass. Imports no framework."""

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


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
        """As the command line has it."""
        return "--" + self.name.replace("_", "-")

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
        several = {list[int]: "whole numbers such as [3,5]", list[float]: "numbers such as [0.1,0.2]"}
        return " or ".join((words | several).get(kind, f"of the kind {kind}") for kind in self.kinds)


def flags_of(cls: type) -> list[Flag]:
    """The settings of a command's dataclass, in the order of their fields."""
    hints = get_type_hints(cls)
    return [Flag(item.name, hints[item.name], item) for item in dataclasses.fields(cls)]


def spellings(flags: Sequence[Flag]) -> set[str]:
    """Every word that begins with dashes and means something."""
    known = {flag.spelling for flag in flags if not flag.is_positional}
    return known | {"--no-" + flag.spelling[2:] for flag in flags if flag.is_switch} | {"--config", "--help", "-h"}
