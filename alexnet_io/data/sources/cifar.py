"""CIFAR-10 and CIFAR-100, as torchvision, tfds or the official archives left them in the data directory."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.sources.cifar_files import CIFAR10, CIFAR100, SIDE, Form, Read
from alexnet_io.data.sources.dataset import DataSet, digest
from alexnet_io.data.sources.downloading import fetch
from alexnet_io.data.sources.files import DecodedImages
from alexnet_io.data.sources.prepared import Preparing, array_split
from alexnet_io.data.sources.tfds_prepared import find_prepared, open_tfds
from alexnet_io.errors import UserError


@dataclass(frozen=True)
class Origin:
    """What there is to fetch; checksums as tensorflow-datasets 4.9 lists them."""

    url: str
    sha256: str
    size: int
    classes: int
    forms: tuple[Form, Form]


ORIGINS = {
    "cifar10": Origin(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170_052_171,
        10,
        CIFAR10,
    ),
    "cifar100": Origin(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168_513_733,
        100,
        CIFAR100,
    ),
}


def open_cifar(name: str, data_dir: Path, preparing: Preparing, download: bool = False) -> DataSet:
    """Opens `cifar10` or `cifar100` from what lies in `data_dir`.

    Looked for in this order: the folders and archives of pickled batches, the binary ones, tfds's prepared data.

    Args:
        name: which of the two.
        data_dir: where they lie.
        preparing: size of the images, None for 32x32.
        download: fetches the binary archive into `data_dir` where nothing is found.

    Raises:
        UserError: nothing found and no leave to fetch it (the command is given), or a damaged file.
    """
    origin = ORIGINS[name]
    found = _find(origin, data_dir)
    if found is None and (data_dir / name).is_dir() and find_prepared(name, [data_dir]) is not None:
        native = replace(preparing, resizing=preparing.resizing or Resizing(SIDE, SIDE, SIDE))
        return open_tfds(name, [data_dir], native)
    if found is None:
        binary = origin.forms[1]
        target = data_dir / binary.archive
        if not download:
            raise UserError(
                f"{name} is not in {printable(data_dir)}, and nothing is downloaded unasked. Add --download to fetch "
                f"{origin.size / 1e6:.0f} MB, or run: curl -L --create-dirs -o {printable(target)} {origin.url}"
            )
        fetch(origin.url, target, sha256=origin.sha256, size=origin.size, progress=preparing.progress)
        found = binary, _archive_reader(target, binary)
    return _read(name, origin, *found, preparing, str(data_dir.resolve()))


def _read(name: str, origin: Origin, form: Form, read: Read, preparing: Preparing, where: str) -> DataSet:
    class_names = form.class_names(read)
    if len(class_names) != origin.classes:
        raise UserError(f"{form.names}: {len(class_names)} class names where {name} has {origin.classes}. Get it again")
    splits = []
    for split, files in (("train", form.train), ("test", form.test)):
        images, labels = form.split(files, read)
        # Pixels are part of the key: the folder may lie anywhere and hold anything.
        key = digest(name, split, str(images.shape), str(zlib.crc32(images.data)), str(zlib.adler32(images.data)))
        names = [f"{split}-{place:05d}" for place in range(len(labels))]
        decoded = DecodedImages(names, images, key, f"{name} in {where}, {split}")
        splits.append(array_split(split, decoded, labels, preparing))
    return DataSet(name, class_names, splits[0], splits[1])


def _find(origin: Origin, data_dir: Path) -> tuple[Form, Read] | None:
    for form in origin.forms:
        for folder in (data_dir / form.folder, data_dir):
            if folder.name == form.folder and folder.is_dir():
                return form, _folder_reader(folder)
        if (data_dir / form.archive).is_file():
            return form, _archive_reader(data_dir / form.archive, form)
    return None


def _folder_reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{printable(folder / name)} can't be read ({error.strerror or error}): the data set is incomplete. "
                "Remove the folder and get it again"
            ) from error

    return read


def _archive_reader(path: Path, form: Form) -> Read:
    """Reads members of a .tar.gz that is never unpacked: all wanted ones in one pass."""
    wanted = {f"{form.folder}/{name}": name for name in (*form.train, *form.test, form.names)}
    members: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        if not members:
            try:
                with tarfile.open(path, "r:gz") as archive:
                    for member in archive:
                        key = wanted.get(member.name.removeprefix("./"))
                        file = archive.extractfile(member) if key and member.isfile() else None
                        if key and file:
                            members[key] = file.read()
            except Exception as error:  # tarfile and zlib raise nearly anything on damaged files
                raise UserError(f"{printable(path)} is damaged ({error}): remove it and get it again") from error
        if name not in members:
            raise UserError(f"{printable(path)} has no {form.folder}/{name}: remove it and get it again")
        return members[name]

    return read
