"""What a cache folder says of itself: what it was made from, and the sums that vouch for every image in it."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.files.atomic_file import write_text

FORMAT = 2
INDEX, SUMS, IMAGES = "index.json", "checksums.npy", "images.npy"


class Damaged(Exception):
    """A cache is not as it was written; the message says where."""


@dataclass(frozen=True)
class Origin:
    """What a cache is made from.

    Attributes:
        source: where the images come from, for people.
        lineage: the same for caches of which a newer one replaces an older one: of one source, at one size, with the
            same decoders. Empty where nothing is known of it.
        pixels: height and width of the images.
        images: how many there are.
    """

    source: str = ""
    lineage: str = ""
    pixels: tuple[int, int] = (0, 0)
    images: int = 0


@dataclass(frozen=True)
class Index:
    """The whole of it.

    Attributes:
        origin: see there.
        shape: (N, height, width, 3).
        bad: number and reason of every unreadable file.
        several: numbers of the files of which only the first frame was taken.
        sums: uint32 (2, N): of each image as its source has it, and of its pixels as they are kept.
    """

    origin: Origin
    shape: tuple[int, ...]
    bad: dict[int, str]
    several: tuple[int, ...]
    sums: np.ndarray


def write_index(folder: Path, index: Index) -> None:
    """Writes all that a finished cache in `folder` holds beside the images."""
    np.save(folder / SUMS, index.sums)
    content = {
        "format": FORMAT,
        "origin": asdict(index.origin),
        "shape": list(index.shape),
        "bad": sorted([number, reason] for number, reason in index.bad.items()),
        "several": sorted(index.several),
        "sums": zlib.crc32(index.sums.tobytes()),
    }
    write_text(folder / INDEX, json.dumps({"content": content, "crc32": _sum(content)}))


def write_origin(folder: Path, origin: Origin) -> None:
    """Notes what a cache that is being filled in `folder` is made from."""
    write_text(folder / INDEX, json.dumps({"content": {"origin": asdict(origin)}}))


def read_index(folder: Path, shape: tuple[int, ...]) -> tuple[Index, np.ndarray]:
    """The index and the images, uint8 of `shape` as a read-only memory map, of the finished cache in `folder`.

    Raises:
        Damaged: anything but the pixels themselves is not as it was written.
    """
    with _naming(INDEX):
        content = _content(folder)
        if content["format"] != FORMAT or tuple(content["shape"]) != shape:
            raise ValueError("it is of other images")
        bad = {int(number): str(reason) for number, reason in content["bad"]}
        several = tuple(int(number) for number in content["several"])
        if any(not 0 <= number < shape[0] for number in (*bad, *several)):
            raise ValueError("it numbers images that aren't there")
        origin = _origin(content)
    with _naming(SUMS):
        sums = np.lib.format.read_array(io.BytesIO((folder / SUMS).read_bytes()), allow_pickle=False)
        if sums.shape != (2, shape[0]) or sums.dtype != np.uint32 or zlib.crc32(sums.tobytes()) != content["sums"]:
            raise ValueError("its content changed")
    with _naming(IMAGES):
        images = np.lib.format.open_memmap(folder / IMAGES, mode="r")  # refuses a file that is too short
        if images.shape != shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
            raise ValueError("its header changed")
        if images.offset + images.nbytes != (folder / IMAGES).stat().st_size:
            raise ValueError("its length changed")
    return Index(origin, shape, bad, several, sums), images


def read_origin(folder: Path) -> Origin:
    """What the cache in `folder`, finished or not, is made from, as far as it says so."""
    with contextlib.suppress(Exception):
        return _origin(json.loads((folder / INDEX).read_bytes())["content"])
    return Origin()


def _content(folder: Path) -> dict[str, Any]:
    stored = json.loads((folder / INDEX).read_bytes())
    if stored["crc32"] != _sum(stored["content"]):
        raise ValueError("its content changed")
    return stored["content"]


def _origin(content: dict[str, Any]) -> Origin:
    stored = content["origin"]
    height, width = stored["pixels"]
    return Origin(str(stored["source"]), str(stored["lineage"]), (int(height), int(width)), int(stored["images"]))


def _sum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


@contextlib.contextmanager
def _naming(file: str) -> Any:
    """Turns what goes wrong with `file` into `Damaged`: NumPy and json raise nearly anything on what isn't theirs."""
    try:
        yield
    except OSError as error:
        raise Damaged(f"{file}: {error.strerror or error}") from error
    except Exception as error:
        raise Damaged(f"{file}: {' '.join(str(error).split()) or type(error).__name__}") from error
