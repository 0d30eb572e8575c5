"""Command lines where jsonargparse isn't installed: the same flags, read by the standard library, without YAML."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from alexnet_io.command_line.flags import Flag


class PlainParser(argparse.ArgumentParser):
    """Parses flags as `alexnet_io.command_line.settings` asks for them.

    Args:
        flags: the command's settings.
        help_text: what `--help` prints.
        refuse: ends the program with a message.
    """

    def __init__(self, flags: Sequence[Flag], help_text: str, refuse: Callable[[str], NoReturn]) -> None:
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS)
        self._help_text, self._refuse = help_text, refuse
        self._values = {flag.name: flag.default for flag in flags}
        self.add_argument("--config")
        for flag in flags:
            if flag.is_positional:
                self.add_argument(flag.name, nargs="+", type=_reader(flag))
            elif flag.is_switch:
                self.add_argument(flag.spelling, action=argparse.BooleanOptionalAction)
            else:
                self.add_argument(flag.spelling, type=_reader(flag))

    def format_help(self) -> str:
        """What `--help` prints."""
        return self._help_text

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line."""
        self._refuse(re.sub(r"^argument (--[a-z-]+): ", r"\1 ", message))

    def values(self, words: list[str], defaults: bool) -> dict[str, Any]:
        """Settings by name: those that were given, and the others' defaults if asked for."""
        given = vars(super().parse_args(words))
        if "config" in given:
            self.error("--config needs jsonargparse, which is not installed: give the settings as flags")
        return {**self._values, **given} if defaults else given


def _reader(flag: Flag) -> Callable[[str], Any]:
    # Of a list of words without a flag, argparse hands over one word at a time.
    kind = get_args(flag.hint)[0] if flag.is_positional else flag.kinds[0]

    def read(word: str) -> Any:
        try:
            if get_origin(kind) is list:
                (inner,) = get_args(kind)
                return [inner(value) for value in json.loads(word)]
            return {int: int, float: float, Path: Path}.get(kind, str)(word)
        except (ValueError, TypeError):
            raise argparse.ArgumentTypeError(f"{word!r} is not {flag.wanted}") from None

    return read
