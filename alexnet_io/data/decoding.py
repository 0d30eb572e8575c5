"""One way from the bytes of an image file to RGB pixels, used by both frameworks.

The conversion, in full: the type is read from the bytes, never from the name; the size is checked before
anything is decoded; greyscale is repeated three times; palettes are looked up; CMYK and YCCK go through
Pillow's plain `(255 - C) * (255 - K) / 255`, colour profiles ignored; alpha is dropped, not blended; 16-bit
greyscale is divided by 257 and rounded, 16-bit colour keeps its high byte (all that Pillow hands out); of several
frames or pages the first counts. The orientation noted in EXIF is ignored, as torchvision's `ImageFolder` does, but
for TIFF, whose own tag Pillow follows, there too.

Pillow's warnings and log lines about odd metadata are kept from the terminal: what can't be decoded is an `ImageError`.

Pillow is imported when the first image is decoded: what is prepared already is read without.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.image_types import FORMATS, lacking, reader, sniff_format
from alexnet_io.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a gigabyte of RGB

# Bytes that stand in a JPEG without a length after them: stuffing, TEM, restarts, start and end of the image.
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))
_FROM_PILLOW = re.compile(r"PIL\.")
_SEVERAL_FRAMES = frozenset(("PNG", "GIF", "WEBP", "TIFF", "AVIF"))


class ImageError(UserError):
    """An image file that can't or won't be decoded; the message names it."""


@dataclass(frozen=True)
class Resizing:
    """How decoded images become one size: `height` x `width` pixels.

    With `short_side` the shorter side is brought to it, keeping proportions, and the centre is cut out, as
    torchvision's `Resize(short_side)`, `CenterCrop((height, width))`; without it the image is stretched.
    """

    height: int
    width: int
    short_side: int | None = None

    def __post_init__(self) -> None:
        sides = (self.height, self.width) + (() if self.short_side is None else (self.short_side,))
        if min(sides) < 1:
            raise UserError(f"image sizes must be at least 1 pixel, not {min(sides)}")
        if self.short_side is not None and self.short_side < max(self.height, self.width):
            raise UserError(
                f"a {self.height}x{self.width} crop does not fit into images whose shorter side is "
                f"{self.short_side}: choose a shorter side of at least {max(self.height, self.width)}"
            )


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decodes the bytes of one image file to RGB.

    Args:
        data: the whole file.
        name: how errors call it.

    Returns:
        uint8 (height, width, 3), values 0 to 255, converted as this module's docstring says.

    Raises:
        ImageError: empty, truncated or damaged, of a type not in `FORMATS`, or over `MAX_PIXELS`.
    """
    return _array(_decode(data, name)[0]).copy()


def rgb_of(image: Image.Image, name: str) -> np.ndarray:
    """The pixels of a Pillow image, converted as those of a file: uint8 (height, width, 3).

    Raises:
        ImageError: pixels of a kind that is not supported, or too many or none of them.
    """
    _check_pixels(image.width, image.height, name, "holds")
    return _array(_to_rgb(image, name)).copy()


def read_rgb(path: str | Path) -> np.ndarray:
    """Reads and decodes one image file as `decode_rgb`.

    Raises:
        ImageError: also when the file can't be read.
    """
    name = printable(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
    return decode_rgb(data, name)


def prepare(data: bytes, name: str, resizing: Resizing) -> np.ndarray:
    """Decodes and resizes in one go: uint8 (resizing.height, resizing.width, 3), read-only.

    Raises:
        ImageError: as `decode_rgb`; or so long and thin that the resized image would exceed `MAX_PIXELS`.
    """
    return prepare_first(data, name, resizing)[0]


def prepare_first(data: bytes, name: str, resizing: Resizing) -> tuple[np.ndarray, bool]:
    """As `prepare`, and whether the file holds more frames or pages than the first, which is the one that is read."""
    image, several = _decode(data, name)
    return _array(_resize(image, resizing, name)), several


def resize(rgb: np.ndarray, resizing: Resizing, name: str = "image") -> np.ndarray:
    """Resizes uint8 (height, width, 3) pixels; what `prepare` does after decoding."""
    from PIL import Image

    return _array(_resize(Image.fromarray(_checked_rgb(rgb)), resizing, name)).copy()


def resize_and_center_crop(rgb: np.ndarray, short_side: int, crop: int) -> np.ndarray:
    """Shorter side to `short_side`, then the central `crop` x `crop` pixels.

    Pillow's bilinear filter, which widens when shrinking (antialias): bit for bit torchvision's
    `Resize(short_side)` and `CenterCrop(crop)` on PIL images.

    Args:
        rgb: uint8 (height, width, 3).
        short_side: pixels.
        crop: pixels, at most `short_side`.

    Returns:
        uint8 (crop, crop, 3).
    """
    return resize(rgb, Resizing(crop, crop, short_side))


def resize_exact(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretches uint8 (height, width, 3) pixels to `size` = (height, width) with Pillow's bilinear filter."""
    return resize(rgb, Resizing(*size))


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width once the shorter side is `short_side`; the longer is rounded down, as in torchvision."""
    short, long = min(height, width), max(height, width)
    other = int(short_side * long / short)
    return (other, short_side) if height > width else (short_side, other)


def _resize(image: Image.Image, resizing: Resizing, name: str) -> Image.Image:
    from PIL.Image import Resampling

    crop = (resizing.width, resizing.height)
    if resizing.short_side is None:
        return image if image.size == crop else image.resize(crop, Resampling.BILINEAR)
    height, width = resized_size(image.height, image.width, resizing.short_side)
    _check_pixels(width, height, name, "would become")
    if image.size != (width, height):
        image = image.resize((width, height), Resampling.BILINEAR)
    if image.size == crop:
        return image
    # torchvision rounds halves to even, as Python does.
    left, top = round((width - crop[0]) / 2), round((height - crop[1]) / 2)
    return image.crop((left, top, left + crop[0], top + crop[1]))


def _decode(data: bytes, name: str) -> tuple[Image.Image, bool]:
    """The first image in mode RGB, and whether there are more."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = sniff_format(data)
    if kind not in FORMATS:
        found = f"this is {kind}" if kind else "no image type was recognised in its first bytes"
        raise ImageError(f"{name}: {found}; readable types are {', '.join(FORMATS)}")
    if kind == "JPEG":
        data = _without_exif(data)
    _silence_pillow()
    try:
        # The readers are called directly: Image.open would warn about large images before we can refuse them, and
        # would look at the second picture that phones hide in a JPEG.
        image = reader(kind)(io.BytesIO(data))
        _check_pixels(image.width, image.height, name, "holds")
        image.load()
        return _to_rgb(image, name), kind in _SEVERAL_FRAMES and _has_more(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        words = str(error) or type(error).__name__
        # TIFF needs its library for compressed images only, and says so.
        if (kind != "TIFF" or "not available" in words) and (reason := lacking(kind)):
            raise ImageError(f"{name}: {reason}") from error
        raise ImageError(f"{name}: damaged or truncated {kind}: {words}") from error


def _has_more(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # damage beyond the first frame is no concern of ours
        return bool(getattr(image, "is_animated", False))
    return True


def _silence_pillow() -> None:
    """Keeps Pillow's warnings and log lines off the terminal, for good.

    Filters can't be set for one thread or for a while when several threads decode: whoever puts back what was there
    before may put back another thread's. Handlers and filters that others set up stay.
    """
    first = next(iter(warnings.filters), (None,) * 5)
    if (first[0], first[3]) != ("ignore", _FROM_PILLOW):  # one in front of it would be heard before it
        warnings.filterwarnings("ignore", module=_FROM_PILLOW.pattern)
    logger = logging.getLogger("PIL")
    if not logger.handlers:  # without any, Python prints what is logged
        logger.addHandler(logging.NullHandler())


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_grey_of_16_bits(image, name)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    if image.mode in ("1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise ImageError(f"{name}: pixels of kind {image.mode} are not supported; save it as 8-bit RGB")


def _grey_of_16_bits(image: Image.Image, name: str) -> np.ndarray:
    """uint8 (height, width); Pillow's own conversion would clip at 255, and knows neither of these two tags of TIFF."""
    grey, tags = np.asarray(image).astype(np.int64), getattr(image, "tag_v2", {})
    most = 2 ** tags.get(258, (16,))[0] - 1  # bits of a sample
    most = most if most < 65535 else 65535
    if grey.min() < 0 or grey.max() > most:
        raise ImageError(f"{name}: grey values outside the range of {most.bit_length()} bits")
    if tags.get(262) == 0 and image.mode != "I":  # white is zero
        grey = most - grey
    return ((2 * 255 * grey + most) // (2 * most)).astype(np.uint8)


def _check_pixels(width: int, height: int, name: str, verb: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {verb} no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {verb} {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed; shrink it first"
        )


def _without_exif(data: bytes) -> bytes:
    """The JPEG without its APP1 segments: EXIF is ignored, and Pillow stumbles over damaged EXIF."""
    kept, position = [data[:2]], 2
    while (start := data.find(b"\xff", position)) >= 0:  # whatever stands between two segments is passed over
        at = start + 1
        while data[at : at + 1] == b"\xff":  # any number of them may fill up before a marker
            at += 1
        if at + 3 > len(data) or data[at] == 0xDA:  # the end, or the start of scan: pixels follow
            break
        end = at + 1 if data[at] in _ALONE else at + 1 + int.from_bytes(data[at + 1 : at + 3], "big")
        if data[at] != 0xE1:
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])


def _checked_rgb(rgb: np.ndarray) -> np.ndarray:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"expected uint8 pixels of shape (height, width, 3), got {rgb.dtype} {rgb.shape}")
    return np.ascontiguousarray(rgb)


def _array(image: Image.Image) -> np.ndarray:
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)
