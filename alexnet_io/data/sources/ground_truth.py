"""The labels of ImageNet's validation images when they lie side by side, without class folders.

SciPy is imported for a file of MATLAB's alone.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"

# File, what each line is, and who gives it out.
_TABLES = (
    ("LOC_val_solution.csv", "image name, synset", "Kaggle"),
    ("val.txt", "image name, place of its synset in sorted order", "Caffe"),
    ("imagenet_2012_validation_synset_labels.txt", "synset, in the order of the images", "TensorFlow"),
)


def validation_labels(root: Path, val: Path, names: Sequence[str], synsets: Sequence[str]) -> np.ndarray:
    """Labels int32 (N,) of the images `names` in `val`: places in `synsets`, which is sorted.

    Taken from the first of these that lies in `root` or `val`: LOC_val_solution.csv, val.txt,
    imagenet_2012_validation_synset_labels.txt, or the development kit (unpacked or as the .tar.gz; its `meta.mat`
    says which number is which synset, for which SciPy is needed).

    Raises:
        UserError: none is there, or it does not cover the images, or names synsets that training lacks.
    """
    places = {synset: place for place, synset in enumerate(synsets)}
    for file, _, _ in _TABLES:
        for folder in (root, val):
            if (folder / file).is_file():
                return _from_table(folder / file, names, synsets, places)
    for read, shown in _devkits(root):
        return _from_devkit(read, shown, names, places)
    known = "; ".join(f"{file} ({maker}: {line})" for file, line, maker in _TABLES)
    raise UserError(
        f"{printable(val)} has images but no synset folders, and no file with their labels is in {printable(root)}. "
        f"Put one of these there: {known}; or {DEVKIT}.tar.gz (or its folder); or sort the images into folders"
    )


def _from_table(path: Path, names: Sequence[str], synsets: Sequence[str], places: dict[str, int]) -> np.ndarray:
    rows = [line.replace(",", " ").split() for line in path.read_text("utf-8", "replace").splitlines()]
    rows = [row for row in rows if row and row[0] != "ImageId"]
    if all(len(row) == 1 for row in rows):  # one synset a line
        _check_count(path, len(rows), len(names))
        return _places([row[0] for row in rows], places, path)
    labels = {row[0].rsplit("/", 1)[-1].rsplit(".", 1)[0]: row[1] for row in rows if len(row) > 1}
    missing = [name for name in names if Path(name).stem not in labels]
    if missing:
        raise UserError(
            f"{printable(path)} has no label for {len(missing)} images, the first is {printable(missing[0])}"
        )
    wanted = [labels[Path(name).stem] for name in names]
    if all(re.fullmatch(r"\d{1,9}", label, re.ASCII) for label in wanted):
        numbers = np.array([int(label) for label in wanted], np.int32)
        if numbers.max() >= len(synsets):
            raise UserError(
                f"{printable(path)} has the label {numbers.max()}, but training has {len(synsets)} synsets, 0 to "
                f"{len(synsets) - 1}"
            )
        return numbers
    return _places(wanted, places, path)


def _from_devkit(read: Callable[[str], bytes], shown: str, names: Sequence[str], places: dict[str, int]) -> np.ndarray:
    numbers = read(TRUTH).decode("ascii", "replace").split()
    _check_count(f"{shown}/{TRUTH}", len(numbers), len(names))
    by_number = _synset_numbers(read("meta.mat"), shown)
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        raise UserError(f"{shown}/{TRUTH}: {printable(unknown[0])!r} is not a synset number of meta.mat")
    return _places([by_number[number] for number in numbers], places, f"{shown}/{TRUTH}")


def _synset_numbers(meta: bytes, shown: str) -> dict[str, str]:
    """ILSVRC2012_ID, as text, to synset."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError("reading the development kit's meta.mat needs SciPy: pip install scipy") from None
    try:
        table: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in np.atleast_1d(table)}
    except Exception as error:  # SciPy raises nearly anything on damaged files
        raise UserError(f"{shown}/meta.mat is damaged ({error}): get the development kit again") from error


def _devkits(root: Path) -> list[tuple[Callable[[str], bytes], str]]:
    for folder in (root / DEVKIT / "data", root / "devkit" / "data", root / DEVKIT, root / "devkit"):
        if (folder / TRUTH).is_file() and (folder / "meta.mat").is_file():
            return [(lambda name, folder=folder: (folder / name).read_bytes(), printable(folder))]
    archive = root / f"{DEVKIT}.tar.gz"
    return [(lambda name: _from_archive(archive, name), printable(archive))] if archive.is_file() else []


def _from_archive(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive, "r:gz") as opened:
            file = opened.extractfile(f"{DEVKIT}/data/{name}")
            if file is not None:
                return file.read()
    except Exception as error:  # tarfile and zlib raise nearly anything on damaged files
        raise UserError(f"{printable(archive)} is damaged ({error}): get it again") from error
    raise UserError(f"{printable(archive)} has no file data/{name}: get it again")


def _places(wanted: Sequence[str], places: dict[str, int], source: Path | str) -> np.ndarray:
    missing = sorted({synset for synset in wanted if synset not in places})
    if missing:
        raise UserError(
            f"{printable(source)} names {len(missing)} synsets that train/ lacks, the first is "
            f"{printable(missing[0])}. Remove their images from val/, or add them to train/"
        )
    return np.array([places[synset] for synset in wanted], np.int32)


def _check_count(source: Path | str, lines: int, images: int) -> None:
    if lines != images:
        raise UserError(
            f"{printable(source)} has {lines} lines, one for each image in order, but val/ has {images} images"
        )
