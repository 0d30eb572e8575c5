"""Files that a command writes when it is done, `--json FILE` and the like; `-` is standard output.

They are looked at before anything begins, so that no work is lost for want of a folder, and with `-` nothing else goes
to standard output.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from alexnet_io.command_line.flags import Flag
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.files import atomic_file

STANDARD_OUTPUT = "-"
_kept: list[TextIO] = []  # standard output, while all else goes to standard error


def check(files: Mapping[Flag, str | Path | None]) -> None:
    """Refuse files that couldn't be written, or not both.

    Args:
        files: where they go, by flags with `writes` in their metadata; None for those that aren't wanted.

    Raises:
        UserError: a folder that is missing or not writable, a folder in a file's place, `-` for what isn't text, or one
            place for two files.
    """
    taken: dict[str, str] = {}
    for flag, path in files.items():
        if path is None:
            continue
        place = STANDARD_OUTPUT if is_standard_output(path) else os.path.realpath(path)
        if place in taken:
            raise UserError(f"{taken[place]} and {flag.spelling} would both write to {printable(path)}: choose two")
        taken[place] = flag.spelling
        check_one(flag.spelling, Path(path), flag.about["writes"])


def is_standard_output(path: str | Path | None) -> bool:
    """Whether a flag's value means standard output."""
    return path is not None and str(path) in (STANDARD_OUTPUT, "/dev/stdout")


@contextlib.contextmanager
def others_on_standard_error(*paths: str | Path | None) -> Iterator[None]:
    """For a command's run: if one of its files goes to standard output, all else that it prints goes to the other."""
    if not any(map(is_standard_output, paths)):
        yield
        return
    _kept.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def write(flag: str, path: str | Path, content: str | bytes) -> None:
    """Write what a command has to leave where a flag says, whole or not at all, and say so.

    Raises:
        FailedRun: it can't be written any more.
    """
    if is_standard_output(path):
        stream = _kept[-1] if _kept else sys.stdout
        stream.write(content if isinstance(content, str) else content.decode())
        stream.flush()
        return
    plain = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    try:
        atomic_file.write_bytes(Path(path), plain, flag=flag)
    except UserError as error:
        raise FailedRun(str(error)) from None
    print(f"wrote {printable(path)}")


def write_json(flag: str, path: str | Path, value: Any, indent: int = 2) -> None:
    """Write one JSON object where a flag says; otherwise as `write`."""
    write(flag, path, json.dumps(atomic_file.plain(value), indent=indent) + "\n")


def write_by(flag: str, path: str | Path, writer: Callable[[Path], object]) -> None:
    """Write what a function leaves in the file that it is called with; otherwise as `write`."""
    with tempfile.TemporaryDirectory(prefix="writing-") as folder:
        file = Path(folder) / "content"
        writer(file)
        content = file.read_bytes()
    write(flag, path, content)


def check_one(flag: str, path: Path, kind: str) -> None:
    """Refuse a file that couldn't be written.

    Args:
        flag: the command line's word for it.
        path: where it is to go.
        kind: `text`, which standard output takes, or `binary`.

    Raises:
        UserError: as said.
    """
    shown = printable(path)
    if is_standard_output(path):
        if kind != "text":
            raise UserError(f"{flag} {shown} can't go to standard output: it is no text; name a file")
        return
    if path.is_dir():
        raise UserError(f"{flag} {shown} is a folder: name a file in it")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UserError(f"{flag} {shown}: there is no folder {printable(path.parent)}; make it first")
    if not os.access(path if path.exists() and not path.is_file() else folder, os.W_OK):
        raise UserError(f"{flag} {shown}: the folder {printable(folder)} is not writable; choose another place")
