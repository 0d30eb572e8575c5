"""Printing that survives what it meets: closed pipes, full disks, narrow encodings, hostile file names."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from alexnet_io.errors import FailedRun

BROKEN_PIPE_EXIT = 141  # 128 + SIGPIPE, what a shell reports for a program that the closed pipe ended
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(name: str | os.PathLike[str]) -> str:
    r"""A file name on one line, for any terminal: bytes that aren't UTF-8 as \xff, control characters escaped."""
    return "".join(map(_printable_character, os.fspath(name)))


def _printable_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that isn't UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    # Controls, lone surrogates, line separators, and what reverses the direction of the text.
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS:
        return character.encode("unicode_escape").decode()
    return character


def amount(size: float) -> str:
    """Bytes in the largest unit of which there is one, to three digits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def say(text: str, stream: TextIO | None = None) -> bool:
    """Prints `text` as a line at once. If nobody reads the stream any more, it falls silent for good.

    Args:
        text: may hold characters that the stream's encoding lacks; they are escaped.
        stream: standard output by default.

    Returns:
        Whether the line could be written.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None or stream.closed:
        return False
    try:
        stream.write(encodable(text, stream) + "\n")
        stream.flush()
    except OSError:  # a closed pipe, a terminal that hung up, a full disk behind a redirection
        silence(stream)
        return False
    return True


def warn(text: str) -> None:
    """Prints what the user should know, though the work goes on, as a line on standard error."""
    say(f"warning: {text}", sys.stderr)


def encodable(text: str, stream: TextIO) -> str:
    """`text` with what the stream's encoding lacks as escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def silence(stream: TextIO) -> None:
    """Sends all that `stream` still holds and gets to nowhere, so that closing it at exit can't fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """For a command's whole run: escapes what the terminal can't show, and ends quietly at a closed pipe.

    Raises:
        SystemExit: with BROKEN_PIPE_EXIT, if the reader of standard output went away.
        FailedRun: what standard output goes to takes no more, as a full disk.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:  # as behind --help
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                silence(stream)
        raise SystemExit(BROKEN_PIPE_EXIT) from None
    except OSError as error:
        if not _stuck(sys.stdout):
            raise
        silence(sys.stdout)
        what = f"standard output can't be written: {error.strerror or error}"
        raise FailedRun(f"{what}. Put that right, or send it elsewhere") from None


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _stuck(stream: TextIO | None) -> bool:
    """Whether a stream takes no line any more; one that does gets an empty one."""
    try:
        if stream is not None and not stream.closed:
            stream.write("\n")
            stream.flush()
    except OSError:
        return True
    return False
