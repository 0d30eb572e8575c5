"""The prepared cache: images decoded and resized once, then read through a memory map by every later epoch.

A cache is a folder `images-KEY` with `images.npy` (uint8, one row for each file), `checksums.npy` and
`index.json`. It is filled as `images-KEY.partial` and renamed when complete, so a folder without the suffix is
whole; an interrupted fill goes on where it stopped. KEY covers the listing (paths, sizes, times of change), the
resizing and Pillow's version, whose decoders may differ in the last bit.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_io.atomic_file import sync_directory, write_text
from alexnet_io.cache_filling import Filling, fill
from alexnet_io.cache_lock import cache_lock
from alexnet_io.decoding import Resizing
from alexnet_io.errors import UserError
from alexnet_io.printing import printable
from alexnet_io.sources.dataset import digest
from alexnet_io.sources.files import Images

FORMAT = 2  # of which checksums cover whole files
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PreparedImages:
    """An opened cache.

    Attributes:
        images: uint8 (N, height, width, 3), a read-only memory map; the rows of unreadable files are undefined.
        bad: number and reason of every unreadable file.
        checksums: uint32 (N,): files with equal content have equal ones.
        folder: where it lies.
        key: fingerprint of files and resizing.
    """

    images: np.ndarray
    bad: dict[int, str]
    checksums: np.ndarray
    folder: Path
    key: str

    @property
    def good(self) -> np.ndarray:
        """int64: the numbers of the readable files, ascending."""
        return np.setdiff1d(np.arange(len(self.images)), np.fromiter(self.bad, np.int64, len(self.bad)))


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jax_alexnet`, by default `~/.cache/jax_alexnet`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "jax_alexnet"


def prepare_images(
    files: Images,
    resizing: Resizing,
    cache_dir: Path | None = None,
    *,
    threads: int | None = None,
    max_bad: int = 10,
    progress: Progress | None = None,
) -> PreparedImages:
    """Opens the cache of `files`, filling it first where it is missing, unfinished or damaged.

    Args:
        files: what to decode.
        resizing: the one size of all images.
        cache_dir: default `default_cache_dir()`.
        threads: decoding threads, default one for each core this process may use.
        max_bad: unreadable files that are left out before the whole is refused.
        progress: called some times a second with files done, files in all, and what is being done.

    Raises:
        UserError: more than `max_bad` unreadable files, no space, or a folder that can't be written.
    """
    import PIL

    key = digest(str(FORMAT), files.fingerprint, repr(resizing), PIL.__version__)
    folder = (cache_dir or default_cache_dir()).expanduser().resolve() / f"images-{key}"
    shape = (len(files), resizing.height, resizing.width, 3)
    prepared = _open(folder, shape, key)
    if prepared is None:
        report = progress or (lambda done, total, what: None)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with cache_lock(folder, lambda: report(0, len(files), "waiting for another run to prepare the images")):
                prepared = _open(folder, shape, key) or _build(folder, files, resizing, threads, max_bad, report)
        except OSError as error:
            raise UserError(
                f"cannot prepare images in {printable(folder.parent)}: {error.strerror or error}. Free some "
                "space, make the directory writable, or choose another place with --cache-dir"
            ) from error
    _check_bad(prepared.bad, files, max_bad)
    return prepared


def _build(
    folder: Path,
    files: Images,
    resizing: Resizing,
    threads: int | None,
    max_bad: int,
    report: Progress,
) -> PreparedImages:
    partial = folder.with_name(folder.name + ".partial")
    if folder.exists():  # damaged, or _open would have taken it
        shutil.rmtree(folder)
    shape = (len(files), resizing.height, resizing.width, 3)
    filling = Filling(partial, shape)
    filling.open()
    try:
        fill(filling, files, resizing, threads or usable_cores(), max_bad, report)
        _check_bad(filling.bad, files, max_bad)
        filling.finish()
    finally:
        filling.close()
    index = {
        "format": FORMAT,
        "shape": shape,
        "bad": sorted(filling.bad.items()),
    }
    write_text(partial / "index.json", json.dumps(index))
    os.replace(partial, folder)
    sync_directory(folder.parent)
    prepared = _open(folder, shape, folder.name.removeprefix("images-"))
    if prepared is None:
        raise UserError(f"{printable(folder)} changed while it was written; remove it and try again")
    return prepared


def _open(folder: Path, shape: tuple[int, ...], key: str) -> PreparedImages | None:
    """The cache in `folder`, or None when it is missing or anything about it is not as it was written."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        bad = {int(number): str(reason) for number, reason in index["bad"]}
        if index["format"] != FORMAT or any(not 0 <= number < shape[0] for number in bad):
            return None
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")  # refuses a file that is too short
        checksums = np.lib.format.read_array(io.BytesIO((folder / "checksums.npy").read_bytes()), allow_pickle=False)
        if images.shape != shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
            return None
        if checksums.shape != shape[:1] or checksums.dtype != np.uint32:
            return None
    except Exception:  # missing, or whatever it holds now is not what was written
        return None
    return PreparedImages(images, bad, checksums, folder, key)


def _check_bad(bad: dict[int, str], files: Images, max_bad: int) -> None:
    if len(bad) > max_bad:
        listed = "\n  ".join(reason for _, reason in sorted(bad.items())[:20])
        raise UserError(
            f"{len(bad)} image files can't be read, more than the {max_bad} that --max-bad-images leaves out:\n"
            f"  {listed}\nReplace or remove them, or allow more"
        )
    if len(bad) == len(files):
        raise UserError("none of the image files can be read:\n  " + "\n  ".join(bad.values()))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
