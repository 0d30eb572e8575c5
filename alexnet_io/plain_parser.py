"""Command lines where jsonargparse isn't installed: the same flags, read by the standard library, without YAML."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, NoReturn, Protocol, get_args, get_origin


class Flag(Protocol):
    """One setting; see `alexnet_io.settings`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hint(self) -> Any: ...  # noqa: D102
    @property
    def field(self) -> Field: ...  # noqa: D102
    @property
    def spelling(self) -> str: ...  # noqa: D102
    @property
    def is_switch(self) -> bool: ...  # noqa: D102


class PlainParser(argparse.ArgumentParser):
    """Parses flags as `alexnet_io.settings` asks for them.

    Args:
        program: how the command is called.
        description: of the command.
        flags: its settings.
        wanted: what a hint asks for, in words.
    """

    def __init__(self, program: str, description: str | None, flags: Sequence[Flag], wanted: Any) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        self._values: dict[str, Any] = {}
        self.add_argument("--config", help="YAML file with any of these settings (needs jsonargparse)")
        for flag in flags:
            words = flag.field.metadata["help"].replace("%", "%%")
            made = flag.field.default_factory
            self._values[flag.name] = made() if made is not MISSING else flag.field.default
            if flag.field.metadata.get("positional"):
                self.add_argument(flag.name, nargs="+", help=words)
            elif flag.is_switch:
                self.add_argument(flag.spelling, action=argparse.BooleanOptionalAction, help=words)
            else:
                self.add_argument(flag.spelling, type=_reader(flag.hint, wanted(flag.hint)), help=words)

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line."""
        plain = re.sub(r"^argument (--[a-z-]+): ", r"\1 ", message)
        print(f"error: {plain}", file=sys.stderr)
        print(f"Try: {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def values(self, words: list[str], defaults: bool) -> dict[str, Any]:
        """Settings by name: those that were given, and the others' defaults if asked for."""
        given = vars(super().parse_args(words))
        if "config" in given:
            self.error("--config needs jsonargparse, which is not installed: give the settings as flags")
        return {**self._values, **given} if defaults else given


def _reader(hint: Any, words: str) -> Any:
    kinds = [kind for kind in (get_args(hint) if get_origin(hint) is not list else (hint,)) if kind is not type(None)]
    kind = kinds[0] if kinds else hint

    def read(word: str) -> Any:
        try:
            if get_origin(kind) is list:
                (inner,) = get_args(kind)
                return [inner(value) for value in json.loads(word)]
            return {int: int, float: float, Path: Path}.get(kind, str)(word)
        except (ValueError, TypeError):
            raise argparse.ArgumentTypeError(f"{word!r} is not {words}") from None

    return read
