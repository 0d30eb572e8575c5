"""Small image files that tests make and break; imports nothing of ours."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def solid(color: tuple[int, int, int], height: int = 8, width: int = 10) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def png(width: int, height: int, bits: int, color_type: int, scanlines: bytes, more: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow can't write; `more` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(scanlines))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_folder(root: Path, counts: dict[str, int], start: int = 0, size: int = 12) -> None:
    """`counts[path]` small, all different PNG images in each class folder `root/path`."""
    number = start
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            pixels = solid((number % 256, number // 256 % 256, 7), size, size + 2)
            (root / folder / f"{place:03d}.png").write_bytes(encoded(pixels))
            number += 1
