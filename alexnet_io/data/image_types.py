"""The image types that are read, told apart by their first bytes and, in a folder, found by their extensions.

Pillow is imported when the first image is decoded: what is prepared already is read without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFile

# Type, extensions, and the part of Pillow that reads it.
_TYPES = (
    ("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "jpg"),
    ("PNG", (".png", ".apng"), "zlib"),
    ("BMP", (".bmp",), "pil"),
    ("GIF", (".gif",), "pil"),
    ("WEBP", (".webp",), "webp"),
    ("TIFF", (".tif", ".tiff"), "libtiff"),
    ("AVIF", (".avif", ".avifs"), "avif"),
    ("JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"), "jpg_2000"),
    ("PNM", (".ppm", ".pgm", ".pbm", ".pnm"), "pil"),
)
FORMATS = tuple(name for name, _, _ in _TYPES)
EXTENSIONS = tuple(extension for _, extensions, _ in _TYPES for extension in extensions)
_FEATURES = {name: feature for name, _, feature in _TYPES}

# First bytes, of what gets mistaken for an image too, to say what was found.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xffO\xffQ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "NumPy"),
    (b"version https://git-lfs.github.com/spec", "a Git LFS pointer, not the file itself"),
)
_MARKUP = ((b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<svg", "SVG"), (b"<?xml", "XML or SVG"))


def sniff_format(data: bytes) -> str | None:
    """Names the file type that the first bytes of `data` show, or None when they show none we know."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # The brands that follow tell AVIF from HEIF where the first one is of the container alone.
        brands = {data[place : place + 4] for place in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF or video"
    if len(data) > 2 and data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return "PAM" if data[1:2] == b"7" else "PNM"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for start, name in _MARKUP if text.startswith(start)), None)


def reader(kind: str) -> type[ImageFile.ImageFile]:
    """Pillow's reader of a type in `FORMATS`, which finds out the size before it decodes."""
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
        "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
        "PNM": PpmImagePlugin.PpmImageFile,
    }[kind]


def lacking(kind: str) -> str:
    """What to do about it where this Pillow was built without what reads `kind`; empty where it can."""
    from PIL import __version__, features

    if features.check(_FEATURES[kind]):
        return ""
    return (
        f"this Pillow ({__version__}) was built without {_FEATURES[kind]} and can't read {kind}: install another with "
        "pip install --upgrade --force-reinstall pillow, or save the image as PNG"
    )


def decoders() -> str:
    """Pillow's version and those of what it decodes with: another one may differ in a pixel's last bit."""
    from PIL import __version__, features

    parts = dict.fromkeys(("libjpeg_turbo", *_FEATURES.values()))
    return " ".join((__version__, *(f"{part}={features.version(part)}" for part in parts if part != "pil")))
