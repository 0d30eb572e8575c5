"""A command's parser: argparse, with flags and groups from a dataclass and messages that say what to do next."""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from alexnet_io.command_line import config_file, help_text
from alexnet_io.command_line.flags import Flag
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.suggestions import nearest_setting
from alexnet_io.errors import UserError

CONFIG = "config"
_FLAG = re.compile("-+[A-Za-z]")


class CommandParser(argparse.ArgumentParser):
    """Finds settings among words; their values are left as they were written.

    Args:
        cls: the command's dataclass; see `help_text` for what is read from it.
        program: how the command is called, such as `python -m jax_alexnet.train`.
        flags: its settings.
        width: of what `--help` prints, in characters; the terminal's by default.
    """

    def __init__(self, cls: type, program: str, flags: Sequence[Flag], width: int | None = None) -> None:
        super().__init__(
            prog=program,
            usage=help_text.usage(cls, program, flags).replace("%", "%%"),
            description=help_text.description(cls, width).replace("%", "%%"),
            epilog=help_text.examples(cls, program, width).replace("%", "%%"),
            formatter_class=partial(help_text.HelpFormatter, flags={flag.name: flag for flag in flags}, width=width),
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            add_help=False,
            exit_on_error=False,
        )
        self.flags = flags
        # argparse's own takes -1e-3 and -inf for flags.
        self._negative_number_matcher = re.compile(r"-\.?\d|-(inf|nan)$")
        groups: dict[str, argparse._ArgumentGroup] = {}
        for flag in flags:
            title = help_text.group(flag)
            group = groups[title] = groups.get(title) or self.add_argument_group(title)
            shown, value = help_text.entry(flag, program), help_text.metavar(flag)
            if flag.is_positional:
                group.add_argument(flag.name, nargs="*", metavar=help_text.words_of(flag), help=shown)
            elif flag.is_switch:
                group.add_argument(flag.spelling, action=argparse.BooleanOptionalAction, help=shown)
            else:
                group.add_argument(flag.spelling, metavar=value, help=shown)
        group = self.add_argument_group("help")
        about = "YAML file with any of these settings; flags win, and of several files the later one"
        names = config_file.named(flags)
        if names:
            about += f"; or the name of one that comes with the project: {', '.join(names)}"
        group.add_argument(f"--{CONFIG}", metavar="FILE|NAME" if names else "FILE", action="append", help=about)
        group.add_argument("-h", "--help", action="help", help="show this text and stop")

    def print_help(self, file: Any = None) -> None:
        """As argparse does, which keeps it to itself where nothing could be printed."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """What argparse has to say, as everybody else says it."""
        raise UserError(message)

    def words(self, words: Sequence[str]) -> dict[str, Any]:
        """By setting the word that was given for it; True or False for switches, several words where there is no flag.

        Files of settings are a list under `config`.

        Raises:
            UserError: words that are no flags and no flags' values, flags without their value.
        """
        end = words.index("--") if "--" in words else len(words)
        try:
            known, others = self.parse_known_args([_with_dashes(word) for word in words[:end]])
        except argparse.ArgumentError as error:
            raise UserError(self._about_values(str(error.argument_name).split("/"))) from None
        given = vars(known)
        loose = [*others, *words[end + 1 :]]
        positional = next((flag.name for flag in self.flags if flag.is_positional), None)
        if positional:
            # argparse fills it once; after a flag come more of them.
            others = [*given.pop(positional, []), *others]
            loose = [*others, *words[end + 1 :]]
        for word in others:
            if _FLAG.match(word):
                head = word.partition("=")[0]
                raise UserError(f"there is no {printable(head)}{self._did_you_mean(head)}")
        if positional and loose:
            given[positional] = loose
        elif loose:
            raise UserError(f"{printable(loose[0])!r} belongs to no setting: settings look like --name VALUE")
        return given

    def _about_values(self, spellings: Sequence[str]) -> str:
        """What is wrong where argparse finds no value, or one too many."""
        wanted = {flag.spelling: flag.wanted for flag in self.flags if not flag.is_switch} | {"--config": "a YAML file"}
        if spellings[0] in wanted:
            return f"{spellings[0]} needs a value: {wanted[spellings[0]]}"
        alone = [spelling for spelling in spellings if spelling.startswith("--")]
        return f"{alone[0]} takes no value: write {' or '.join(alone)}"

    def _did_you_mean(self, word: str) -> str:
        """`; did you mean --X`, or nothing where no setting is near; with the same `no-` in front."""
        negated = word.startswith("--no-")
        names = [flag.name for flag in self.flags if not flag.is_positional and (flag.is_switch or not negated)]
        near = nearest_setting(
            word.removeprefix("--no-") if negated else word, [*names, *([] if negated else [CONFIG])]
        )
        return f"; did you mean --{'no-' if negated else ''}{near.replace('_', '-')}" if near else ""


def _with_dashes(word: str) -> str:
    """A flag spelt with dashes, whichever way it came: --batch_size is --batch-size."""
    head, mark, tail = word.partition("=")
    return head.replace("_", "-") + mark + tail if head.startswith("--") else word
