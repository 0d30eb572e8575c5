"""Files that are either wholly the old one or wholly the new one, whatever interrupts the writing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

PARTIAL_SUFFIX = ".partial"
_FULL, _FORBIDDEN = "Free some space there", "Make the directory writable"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
}


def write_bytes(
    path: Path, content: bytes, *, flag: str = "--output", check: Callable[[Path], None] | None = None
) -> None:
    """Replaces `path` by `content` in one step, flushed to the disk, with the permissions that the umask gives.

    A link is followed; what is no file, such as /dev/stdout or a named pipe, is written to instead of replaced.

    Args:
        path: the file.
        content: all of it.
        flag: the command line's word for where the file goes, which an error names.
        check: called with the new file before it takes the old one's place; what it raises leaves the old one.

    Raises:
        UserError: the directory is missing or not writable, or the disk is full. The old file is untouched.
    """
    with naming_the_path("write", path, flag):
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)
            return
        path = path.resolve()
        partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(partial)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8; file names that are not UTF-8 keep their bytes. Otherwise as `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON. Otherwise as `write_bytes`."""
    write_text(path, json.dumps(plain(value), indent=2) + "\n")


def sync_directory(path: Path) -> None:
    """Makes renames inside `path` survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def plain(value: Any) -> Any:
    """Turns `value` into what JSON and YAML know: dict, list, str, int, float, bool or None.

    numpy and JAX scalars become Python numbers and arrays become lists, so that no file of ours needs a
    library to be read back.

    Raises:
        TypeError: `value` holds something that has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (bool, int, float, str)):  # subclasses: numpy.float64, enum members, ...
        return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
    if callable(to_list := getattr(value, "tolist", None)):
        return plain(to_list())
    raise TypeError(f"{value!r} of type {type(value).__name__} can't be written as JSON")


@contextlib.contextmanager
def naming_the_path(action: str, path: Path, flag: str = "--output") -> Iterator[None]:
    """Turns an OSError inside the block into a UserError that names `path`, and what can be done with which `flag`."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or errno.ENOSPC, "Put that right")
        raise UserError(
            f"cannot {action} {printable(path)}: {error.strerror or error}. "
            f"{remedy}, or choose another place with {flag}."
        ) from error
