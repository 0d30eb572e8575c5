"""What `--data` may say, checked before anything slow is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

# Name, and what follows the colon: "" nothing, "PATH" or "NAME" required, "[...]" optional.
KINDS = {
    "digits": "",
    "folder": "PATH",
    "cifar10": "",
    "cifar100": "",
    "imagenet": "PATH",
    "tfds": "NAME",
    "synthetic": "[classes=N,train=N,test=N]",
}


@dataclass(frozen=True)
class Spec:
    """A parsed data specification: `folder:/pictures` is kind "folder", argument "/pictures"."""

    kind: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


def parse_spec(text: str) -> Spec:
    """Parses `text`, one of `usage()`.

    Raises:
        UserError: no such source (the nearest name is given), or its path or name is missing or unexpected.
    """
    kind, colon, argument = text.partition(":")
    if kind not in KINDS:
        if Path(text).expanduser().is_dir():
            hint = f": for a folder of images say folder:{text}"
        else:
            hint = nearest(kind.lower(), KINDS)
        raise UserError(f"unknown data source {printable(text)!r}{hint}; valid: {usage()}")
    wanted = KINDS[kind]
    if wanted.isalpha() and not argument:
        raise UserError(f"data source {text!r} needs {kind}:{wanted}, as in {_EXAMPLES[kind]}")
    if not wanted and colon:
        raise UserError(f"data source {kind!r} takes nothing after its name, but {text!r} was given")
    return Spec(kind, argument)


def nearest(word: str, valid: Iterable[str]) -> str:
    """Ends a message with the valid word most like `word`; empty where none is."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def usage() -> str:
    """All valid specifications, for help texts and errors."""
    return ", ".join(
        kind + (f":{wanted}" if wanted.isalpha() else wanted.replace("[", "[:", 1)) for kind, wanted in KINDS.items()
    )


_EXAMPLES = {"folder": "folder:/home/me/pictures", "imagenet": "imagenet:/data/imagenet", "tfds": "tfds:mnist"}
