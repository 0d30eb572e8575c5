"""`parity data`: decoding, preprocessing, augmentation and learning rates of both frameworks.

Pictures are read by the function that both sides use, and once more by torchvision's own transforms on Pillow: the
same bits. The networks' input is `parity.alexnet.inputs`, learning rates are `parity.alexnet.rates`.

Pillow and torchvision are imported where pictures are compared: comparing networks does without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.data import decoding
from alexnet_io.errors import UserError
from parity.alexnet import data_causes, inputs, rates
from parity.reports.report import Report
from parity.reports.rows import Row, compare_arrays

Resize = Callable[[Path, int, int], NDArray]

# Height and width of made-up pictures, the short side that they are resized to, and the side of the central crop:
# margins of 3 and 11, 5 and 13, 1 and 9 pixels, whose halves are rounded up, to even and down.
MADE_UP = ((40, 51, 31, 28), (51, 40, 31, 26), (40, 51, 31, 30), (51, 40, 31, 28), (33, 33, 21, 16))


def run(
    folder: Path | None = None,
    *,
    seed: int = 0,
    pictures: int = 16,
    dtype: str = "all",
) -> Report:
    """Compare everything between a file and the network's input, and the learning rates.

    Args:
        folder: real pictures; where there are none, that decoding isn't exercised is said.
        seed: of made-up pixels and draws.
        pictures: how many of the folder are read, spread over it.
        dtype: of the networks' input: `float64`, `float32` or `all`.
    """
    rows: list[Row] = []
    missing: list[str] = []
    if folder is None:
        missing.append("decoding: name a folder of pictures with --images")
    else:
        rows += decoding_rows(folder, shared_resize, pictures)
    rows += made_up_rows(shared_resize, seed)
    rows += inputs.rows(seed, inputs.INPUT_DTYPES if dtype == "all" else (dtype,))
    rows += rates.rows()
    return Report(rows, missing, {"seed": seed, "images": str(folder)})


def shared_resize(path: Path, short_side: int, crop: int) -> NDArray:
    """What both frameworks really run."""
    return decoding.resize_and_center_crop(decoding.read_rgb(path), short_side, crop)


def decoding_rows(folder: Path, resize: Resize, pictures: int) -> list[Row]:
    """Decoded pixels, and resized and cropped ones, against torchvision's transforms: bit for bit."""
    from PIL import Image

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise UserError(f"{folder} holds no .jpg, .jpeg or .png: name a folder of pictures")
    rows = []
    for i in range(min(pictures, len(paths))):
        path = paths[i * len(paths) // min(pictures, len(paths))]
        with Image.open(path) as file:
            image = file.convert("RGB")
        short = max(8, min(256, min(image.size) * 3 // 4))
        crop = short * 7 // 8
        row = Row("data", "decode", "decode", path.name, "uint8", order=0, kind="data")
        rows.append(compare_arrays(row, decoding.read_rgb(path), np.asarray(image), None))
        rows.append(_resized(path.name, path, image, short, crop, resize))
    return rows


def made_up_rows(resize: Resize, seed: int) -> list[Row]:
    """Made-up pictures with odd margins, resized and cropped, against torchvision's transforms: bit for bit."""
    from PIL import Image

    rng = np.random.default_rng([seed, 8])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for height, width, short, crop in MADE_UP:
            path = Path(folder) / f"{height}x{width}.png"
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            image.save(path)
            rows.append(_resized(f"{height}x{width} to {short}, {crop}", path, image, short, crop, resize))
    return rows


def _resized(name: str, path: Path, image: Any, short: int, crop: int, resize: Resize) -> Row:
    from torchvision import transforms

    theirs = np.asarray(transforms.CenterCrop(crop)(transforms.Resize(short)(image)))
    row = Row("data", "resize", "resize", name, "uint8", order=1, kind="data")
    ours = resize(path, short, crop)
    compare_arrays(row, ours, theirs, None)
    if not row.equal:
        data_causes.attach(row, data_causes.of_resize(np.asarray(image), short, crop, ours, theirs))
    return row
