"""One way from the bytes of an image file to RGB pixels, used by both frameworks.

The conversion, in full: the type is read from the bytes, never from the name; the size is checked before
anything is decoded; greyscale is repeated three times; palettes are looked up; CMYK and YCCK go through
Pillow's plain `(255 - C) * (255 - K) / 255`, colour profiles ignored; alpha is dropped, not blended; 16-bit
greyscale is divided by 257 and rounded, 16-bit colour keeps its high byte (all that Pillow hands out); of an
animation the first frame counts. The orientation noted in EXIF is ignored, as torchvision's `ImageFolder` does.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_io.errors import UserError
from alexnet_io.printing import printable

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a gigabyte of RGB

# First bytes of what gets mistaken for an accepted image, to say what was found.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xffO\xffQ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "NumPy"),
)
_MARKUP = ((b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<svg", "SVG"), (b"<?xml", "XML or SVG"))
_apng = threading.Lock()


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


def sniff_format(data: bytes) -> str | None:
    """Names the file type that the first bytes of `data` show, or None when they show none we know."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIF or video"
    if len(data) > 2 and data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return "PNM"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for start, name in _MARKUP if text.startswith(start)), None)


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
    return _array(_decode(data, name)).copy()


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
    return _array(_resize(_decode(data, name), resizing, name))


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


def _decode(data: bytes, name: str) -> Image.Image:
    """The image in mode RGB."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = sniff_format(data)
    if kind not in FORMATS:
        found = f"this is {kind}" if kind else "no image type was recognised in its first bytes"
        raise ImageError(f"{name}: {found}; readable types are {', '.join(FORMATS)}")
    if kind == "JPEG":
        data = _without_exif(data)
    try:
        if kind == "PNG" and b"acTL" in data:
            # Pillow warns about odd animation headers; the still image is what counts here.
            with _apng, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _load(data, kind, name)
        return _load(data, kind, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise ImageError(f"{name}: damaged or truncated {kind}: {str(error) or type(error).__name__}") from error


def _load(data: bytes, kind: str, name: str) -> Image.Image:
    # The readers are called directly: Image.open would warn about large images before we can refuse them, and
    # would look at the second picture that phones hide in a JPEG.
    image = _reader(kind)(io.BytesIO(data))
    _check_pixels(image.width, image.height, name, "holds")
    image.load()
    return _to_rgb(image, name)


def _reader(kind: str) -> Any:
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    return {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }[kind]


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(f"{name}: grey values outside the 16-bit range")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    if image.mode in ("1", "L", "LA", "P", "RGBA", "RGBX", "CMYK"):
        return image.convert("RGB")
    raise ImageError(f"{name}: pixels of kind {image.mode} are not supported; save it as 8-bit RGB")


def _check_pixels(width: int, height: int, name: str, verb: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {verb} no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {verb} {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed; shrink it first"
        )


def _without_exif(data: bytes) -> bytes:
    """The JPEG without its APP1 segments: EXIF is ignored, and Pillow warns about damaged EXIF."""
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and 0xC0 <= data[position + 1] <= 0xFE:
        marker, end = data[position + 1], position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # start of scan: pixels follow
            break
        if marker != 0xE1:
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])


def _checked_rgb(rgb: np.ndarray) -> np.ndarray:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"expected uint8 pixels of shape (height, width, 3), got {rgb.dtype} {rgb.shape}")
    return np.ascontiguousarray(rgb)


def _array(image: Image.Image) -> np.ndarray:
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)
