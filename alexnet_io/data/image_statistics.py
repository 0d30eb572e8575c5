"""What normalisation and the paper's colour noise need to know about a training set, measured once."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from alexnet_io.command_line.printing import printable, warn
from alexnet_io.data.sources.dataset import Split
from alexnet_io.errors import UserError
from alexnet_io.files.atomic_file import write_bytes

Progress = Callable[[int, int, str], None]

_BYTES_AT_ONCE = 2**24
_PIXELS_AT_ONCE = 2**16  # stay in the processor's cache as float64


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of pixels on the 0..255 scale.

    Attributes:
        mean_image: float32 (height, width, 3).
        mean: float64 (3,), of each channel.
        std: float64 (3,), of each channel over all pixels (divided by their number).
        eigenvalues: float64 (3,), of the covariance of RGB values over all pixels, descending; on the 0..1 scale
            of the paper's section 4.1 they are these divided by 255 squared.
        eigenvectors: float64 (3, 3), one a column; the largest component of each is positive.
    """

    mean_image: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def training_statistics(split: Split, progress: Callable[[int, int, str], None] | None = None) -> TrainingStatistics:
    """Measures `split`, or reads what was measured before from beside its cache.

    Sums are exact: whole numbers in float64, below 2**53 for up to 10**11 pixels.

    Args:
        split: the training images.
        progress: called with images done, images in all, and what is being done.
    """
    kept = split.store / f"statistics-{split.fingerprint}.npz" if split.store else None
    if kept is not None and (known := _load(kept, split.image_shape)) is not None:
        return known
    statistics = _measure(split, progress or (lambda done, total, what: None))
    if kept is not None:
        file = io.BytesIO()
        np.savez(file, **{field.name: getattr(statistics, field.name) for field in fields(statistics)})
        with contextlib.suppress(UserError):  # a read-only cache: measured again next time
            write_bytes(kept, file.getvalue())
    return statistics


def _measure(split: Split, progress: Progress) -> TrainingStatistics:
    height, width, _ = split.image_shape
    image_sum = np.zeros(split.image_shape)
    products = np.zeros((3, 3))
    # At most 2**16 images at once keep the sums of bytes within uint32.
    at_once = max(1, min(_BYTES_AT_ONCE // (height * width * 3), 2**16))
    for first in range(0, len(split), at_once):
        places = np.arange(first, min(first + at_once, len(split)))
        images = split.read(places)
        image_sum += images.sum(axis=0, dtype=np.uint32)
        pixels = images.reshape(-1, 3)
        for start in range(0, len(pixels), _PIXELS_AT_ONCE):
            block = pixels[start : start + _PIXELS_AT_ONCE].astype(np.float64)
            products += block.T @ block
        progress(int(places[-1]) + 1, len(split), "measuring the training set")
    pixels_seen = len(split) * height * width
    mean = image_sum.sum(axis=(0, 1)) / pixels_seen
    covariance = products / pixels_seen - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return TrainingStatistics(
        mean_image=(image_sum / len(split)).astype(np.float32),
        mean=mean,
        std=np.sqrt(np.maximum(np.diag(covariance), 0)),
        eigenvalues=values,
        eigenvectors=vectors * np.sign(largest),
    )


def _load(path: Path, image_shape: tuple[int, int, int]) -> TrainingStatistics | None:
    """What `path` holds, or None where it is missing or, which is said, anything else than what we wrote."""
    shapes = {"mean_image": image_shape, "mean": (3,), "std": (3,), "eigenvalues": (3,), "eigenvectors": (3, 3)}
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:  # checks the sums that are in it
            values = {name: stored[name] for name in shapes}
        for name, shape in shapes.items():
            wanted = np.float32 if name == "mean_image" else np.float64
            if values[name].shape != shape or values[name].dtype != wanted or not np.isfinite(values[name]).all():
                raise ValueError(f"{name} isn't what it should be")
    except FileNotFoundError:
        return None
    except Exception as error:  # zipfile and NumPy raise nearly anything on what they did not write
        warn(f"the statistics in {printable(path)} are damaged ({error or type(error).__name__}): measuring them again")
        return None
    return TrainingStatistics(**values)
