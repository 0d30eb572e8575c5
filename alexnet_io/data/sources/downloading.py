"""Fetching one large file: resumed where it stopped, checked before it gets its name."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files.atomic_file import sync_directory

_BLOCK = 1 << 20


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int,
    progress: Callable[[int, int, str], None] | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Downloads `url` to `target`, by way of `target.part`.

    Args:
        url: what to fetch.
        target: where it goes; the folder is made.
        sha256: of the whole file, in hexadecimal.
        size: of the whole file, in bytes.
        progress: called with bytes so far, bytes in all, and what is being done.
        timeout_s: of silence, after which the attempt ends.

    Raises:
        UserError: no network, no space, or a file with another checksum, which is removed. What came so far is
            kept, and the next call goes on from there.
    """
    part = target.with_name(target.name + ".part")
    report = progress or (lambda done, total, what: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not part.exists() or part.stat().st_size < size:
            _receive(url, part, size, report, timeout_s)
        found = _sha256(part)
        if part.stat().st_size != size or found != sha256:
            kept = part.stat().st_size
            part.unlink()
            raise UserError(
                f"{url} gave {kept:,} bytes with SHA-256 {found}, but {size:,} with {sha256} are right. The file was "
                "removed; try again, or fetch it by hand"
            )
        os.replace(part, target)
        sync_directory(target.parent)
    except (OSError, HTTPException) as error:  # urllib's own errors are OSErrors
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"fetching {url} to {printable(target)} failed: {printable(str(reason))}. Run the same command again to "
            f"go on where it stopped, or put the file there yourself"
        ) from error


def _receive(url: str, part: Path, size: int, report: Callable[[int, int, str], None], timeout_s: float) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if resumed else 0  # a server that doesn't resume sends the whole
        with open(part, "r+b" if resumed else "wb") as file:
            file.seek(done)
            while done <= size and (block := answer.read(_BLOCK)):
                file.write(block)
                done += len(block)
                report(done, size, f"fetching {part.stem}")
            file.truncate()
    if done < size:
        raise OSError(f"the connection ended after {done:,} of {size:,} bytes")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
