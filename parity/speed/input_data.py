"""The images that `parity throughput --mode input` reads: a user's, or made up where none are given.

Workers get a store, the folder of a prepared cache, and read it as training does. What is made up are JPEG files,
where Pillow is there to write them; without it, a store of random pixels that nothing was decoded for.

Pillow is imported for making pictures up: where it is missing, the rest is measured.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.cache import PreparedImages
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.files import EncodedImages, files_on_disk, image_names
from alexnet_io.data.sources.opening import open_source
from alexnet_io.data.sources.prepared import prepared_split
from alexnet_io.errors import UserError
from alexnet_io.run.progress import now_and_then

# Of the made-up photographs: about what ImageNet's have in the mean, with about as many bytes (110,000).
HEIGHT, WIDTH, QUALITY = 375, 500, 90
# Read from a store at most, so that it stays warm: 2 GB.
MOST_STORED_BYTES = 2 * 10**9
# Decoded again and again at most, from memory.
MOST_FILES = 512


@dataclass(frozen=True)
class Source:
    """Where the images are, in plain data that travels to the processes that read them.

    Attributes:
        name: for people.
        store: folder of a prepared cache with `images.npy`.
        classes: how many the labels name.
        files: folder below which the encoded files lie, or None.
        why: what keeps filling from being measured, if there are no files.
    """

    name: str
    store: str
    classes: int
    files: str | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def given(
    spec: str, stored_size: int, *, data_dir: str = "data", cache_dir: str | None = None, holdout: float | None = None
) -> Source:
    """A data source as `--data` names it, its cache filled if it wasn't.

    Raises:
        UserError: Pillow is missing, the data can't be used, or they have no prepared cache.
    """
    if not have_pillow():
        raise UserError(
            f"--data {printable(spec)} can't be opened without Pillow: install it, or leave --data out to read made-up "
            "images"
        )
    data = open_source(
        spec,
        image_size=stored_size,
        data_dir=data_dir,
        cache_dir=cache_dir,
        holdout=holdout,
        measuring=True,
        progress=now_and_then(),
    )
    store, classes = data.train.store, len(data.class_names)
    if store is None:
        raise UserError(
            f"--data {printable(spec)} is held in memory, without a prepared cache: --mode input needs folder:PATH or "
            "imagenet:PATH"
        )
    kind, _, path = spec.partition(":")
    if kind != "folder":
        return Source(spec, str(store), classes, why=f"filling is measured on folder:PATH, not on {kind}")
    root = Path(path).expanduser()
    inner = next((root / name for name in ("train", "test", "val") if holdout is None and (root / name).is_dir()), root)
    return Source(spec, str(store), classes, str(inner.resolve()))


def made_up(folder: Path, count: int, stored_size: int) -> Source:
    """Made-up images in `folder`: `count` JPEG files and their cache, or a store alone where Pillow is missing."""
    if not have_pillow():
        store = folder / "store"
        store.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (count, stored_size, stored_size, 3), np.uint8)
        np.save(store / "images.npy", pixels)
        return Source(f"{count} made-up images", str(store), 2, why="Pillow is not installed: nothing can be decoded")
    root = folder / "files"
    for i in range(count):
        path = root / "train" / f"class{i % 2}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_photograph(i))
    for i in range(2):
        path = root / "test" / f"class{i}" / "0.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(_photograph(count + i))
    found = given(f"folder:{root}", stored_size, cache_dir=str(folder / "cache"))
    return Source(f"{count} made-up JPEG files of {WIDTH}x{HEIGHT}", found.store, found.classes, found.files)


def have_pillow() -> bool:
    """Whether images can be decoded here."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        return False
    return True


def open_store(source: Source) -> DataSet:
    """The store as training reads it: whole batches out of a memory map, at most `MOST_STORED_BYTES`."""
    folder = Path(source.store)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
    count = min(len(images), max(MOST_STORED_BYTES // images[0].nbytes, 1))
    prepared = PreparedImages(images, {}, np.zeros(len(images), np.uint32), folder, "")
    names = list(map(str, range(len(images))))
    labels = np.arange(len(images), dtype=np.int32) % source.classes
    split = prepared_split("train", names, labels, prepared, np.arange(count))
    return DataSet(source.name, tuple(f"class{i}" for i in range(source.classes)), split, split)


def encoded(source: Source) -> EncodedImages:
    """Up to `MOST_FILES` of the source's files, evenly spread over the folder."""
    if source.files is None:
        raise ValueError(f"{source.name} has no files")
    root = Path(source.files)
    names = list(image_names(root))
    places = np.unique(np.linspace(0, len(names) - 1, MOST_FILES).round().astype(int))
    return files_on_disk(root, [names[i] for i in places])


def repeated(files: EncodedImages, count: int) -> EncodedImages:
    """The files again and again, `count` in all, as one listing."""
    names = list(itertools.islice(itertools.cycle(files.names), count))
    sizes = list(itertools.islice(itertools.cycle(files.sizes), count))
    return EncodedImages(names, sizes, lambda i: files.read(i % len(files)), f"{files.fingerprint} {count}")


def _photograph(seed: int) -> bytes:
    """A JPEG file of soft shapes under grain: as many bytes as a photograph's, and as long to decode."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((WIDTH, HEIGHT), 3)
    grain = rng.normal(0, 13, (HEIGHT, WIDTH, 1))
    pixels = np.clip(np.asarray(shapes, float) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
