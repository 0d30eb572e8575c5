"""What a checkpoint must hold: a digest of every array, so that no damaged byte passes for a weight.

orbax restores an array with a flipped bit without a word; the manifest beside it tells. The files are listed
too, so that a missing, short or altered one is noticed before orbax stumbles over it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file

FILE = "manifest.json"
FORMAT = 1
_SMALL = 65536  # bytes; the contents of larger files are arrays, which have digests of their own


class DamagedCheckpoint(UserError):
    """A checkpoint does not hold what was saved."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array: its shape, numpy dtype name, and the SHA-256 of its bytes in C order."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One file of orbax's: its size in bytes and, if it is small, the SHA-256 of its contents."""

    size: int
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json.

    Attributes:
        step: optimizer steps done when the state was saved.
        metric: what "best" is judged by, higher is better; None if it wasn't measured.
        metadata: plain facts of the run: model, classes, class names, optimizer, epoch, plateau state, ...
        leaves: by name, such as "params/conv1/kernel".
        files: by path below the checkpoint.
    """

    step: int
    metric: float | None
    metadata: dict[str, Any]
    leaves: dict[str, Leaf]
    files: dict[str, StoredFile]


def describe(arrays: Mapping[str, np.ndarray]) -> dict[str, Leaf]:
    """The leaves of `arrays`, digested on several threads (hashing lets go of the interpreter)."""
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(digest, arrays.values()))
    return {
        name: Leaf(array.shape, array.dtype.name, sha256)
        for (name, array), sha256 in zip(arrays.items(), digests, strict=True)
    }


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order, as hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def list_files(directory: Path, below: str) -> dict[str, StoredFile]:
    """The files in `directory`/`below`, by path from `directory`."""
    found = {}
    for path in sorted((directory / below).rglob("*")):
        if path.is_file():
            size = path.stat().st_size
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if size <= _SMALL else None
            found[path.relative_to(directory).as_posix()] = StoredFile(size, sha256)
    return found


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compares the files on disk with the manifest, reading the small ones only.

    Raises:
        DamagedCheckpoint: a file is missing, has another size or other contents.
        UserError: a file can't be read for lack of permission.
    """
    for name, stored in manifest.files.items():
        path, shown = directory / name, printable(directory / name)
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                content = file.read() if stored.sha256 else b""
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{shown} is missing") from None
        except OSError as error:
            raise UserError(f"cannot read {shown}: {error.strerror or error}.") from error
        if size != stored.size:
            raise DamagedCheckpoint(f"{shown} has {size} bytes instead of {stored.size}")
        if stored.sha256 and hashlib.sha256(content).hexdigest() != stored.sha256:
            raise DamagedCheckpoint(f"{shown} isn't what was saved (its digest differs)")


def write(directory: Path, manifest: Manifest) -> None:
    """Writes `directory`/manifest.json and forces it to the disk.

    Raises:
        UserError: the disk is full or not writable.
        TypeError: the metadata hold something that JSON can't.
    """
    body = atomic_file.plain(manifest)
    content = {"format": FORMAT, "sha256": _body_digest(body), **body}
    atomic_file.write_text(directory / FILE, json.dumps(content, indent=1) + "\n")


def read(directory: Path) -> Manifest:
    """Reads and verifies `directory`/manifest.json.

    Raises:
        DamagedCheckpoint: it is missing, torn or altered.
        UserError: it can't be read for lack of permission, or comes from a newer version.
    """
    shown = printable(directory)
    try:
        content = json.loads((directory / FILE).read_bytes())
        version = content.pop("format")
        if isinstance(version, int) and version > FORMAT:
            raise UserError(f"{shown} was written by a newer version (format {version}): update this one.")
        expected = content.pop("sha256")
        if expected != _body_digest(content):
            raise DamagedCheckpoint(f"{shown}: {FILE} was altered after it was written")
        leaves = {
            name: Leaf(tuple(leaf["shape"]), leaf["dtype"], leaf["sha256"])
            for name, leaf in content.pop("leaves").items()
        }
        files = {name: StoredFile(**stored) for name, stored in content.pop("files").items()}
        return Manifest(leaves=leaves, files=files, **content)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedCheckpoint(f"{shown} holds no {FILE}: it is no finished checkpoint of this program") from None
    except OSError as error:
        raise UserError(f"cannot read {shown}: {error.strerror or error}.") from error
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{shown}: {FILE} is not readable ({type(error).__name__}: {error})") from None


def _body_digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def differences(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line for each key of `expected` whose value in `saved` is another one."""
    return [
        f"{key}: saved {_short(saved.get(key))}, asked for {_short(value)}"
        for key, value in atomic_file.plain(expected).items()
        if saved.get(key) != value
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
