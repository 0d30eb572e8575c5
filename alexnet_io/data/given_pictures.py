"""Pictures as a caller of Python hands them over: paths, arrays, Pillow's images, one or many.

What a file may hold an array may hold: greyscale is repeated three times and alpha dropped, as `decoding` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.data.decoding import read_rgb, rgb_of
from alexnet_io.errors import UserError

Picture = str | Path | NDArray[np.uint8] | Any
Pictures = Picture | Iterable[Picture]

WANTED = (
    "a path or an array of uint8 (height, width, 3) in RGB, from 0 to 255, or (height, width) or with 1 or 4 channels,"
)


def listed(pictures: Pictures) -> list[str | Path | NDArray[np.uint8]]:
    """The pictures, one by one: paths as they are, all else as RGB.

    Args:
        pictures: a path, an array of uint8 (height, width), or with 1, 3 or 4 channels behind these, anything that
            becomes such an array, a Pillow image; or any number of them: a sequence, what is iterated once, or an
            array (n, height, width, channels).

    Raises:
        UserError: there are none, or some that are no pictures.
    """
    if _is_one(pictures):
        return [_checked(pictures)]
    if not isinstance(pictures, Iterable) or isinstance(pictures, bytes | bytearray):
        raise UserError(f"a picture is {WANTED} not {type(pictures).__name__}")
    every = [_checked(picture) for picture in pictures]
    if not every:
        raise UserError("there are no pictures: pass paths, or arrays of uint8 (height, width, 3)")
    return every


def pixels(picture: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of one that `listed` gave: uint8 (height, width, 3).

    Raises:
        ImageError: a file that can't be read.
    """
    return picture if isinstance(picture, np.ndarray) else read_rgb(picture)


def _is_one(pictures: Any) -> bool:
    return isinstance(pictures, str | os.PathLike) or _is_image(pictures) or getattr(pictures, "ndim", 4) < 4


def _is_image(picture: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    return pillow is not None and isinstance(picture, pillow.Image)


def _checked(picture: Any) -> str | Path | NDArray[np.uint8]:
    if isinstance(picture, str | Path):
        return picture
    if isinstance(picture, os.PathLike):
        return Path(picture)
    if _is_image(picture):
        return rgb_of(picture, "image")
    array = np.asarray(picture) if hasattr(picture, "__array__") else None
    if array is None:
        raise UserError(f"a picture is {WANTED} not {type(picture).__name__}")
    grey = array.ndim == 2
    channels = 1 if grey else array.shape[2] if array.ndim == 3 else 0
    if array.dtype != np.uint8 or channels not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"a picture is {WANTED} not {array.dtype} {array.shape}: it is normalised here")
    with_channels = array[..., None] if grey else array
    return np.repeat(with_channels, 3, axis=2) if channels == 1 else with_channels[..., :3]
