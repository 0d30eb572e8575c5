"""Files that are no images, or not the ones they seem to be."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, encoded, png, solid
from PIL import Image, ImageFile

from alexnet_io.data.decoding import FORMATS, ImageError, Resizing, decode_rgb, prepare, read_rgb

PHOTO = encoded(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (PHOTO[:200], "damaged or truncated JPEG"),
        (encoded(solid((1, 2, 3), 99, 99))[:60], "damaged or truncated PNG"),
        (b"<!DOCTYPE html><html>Not found</html>", "this is HTML"),
        (b"\n <HTML><body>403</body></html>", "this is HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "this is SVG"),
        (encoded(solid((1, 2, 3)), "TIFF")[:-20], "damaged or truncated TIFF"),
        (encoded(solid((1, 2, 3)), "PPM")[:-20], "damaged or truncated PNM"),
        (encoded(solid((1, 2, 3)), "AVIF")[:-20], "damaged or truncated AVIF"),
        (encoded(solid((1, 2, 3)), "JPEG2000")[:-20], "damaged or truncated JPEG 2000"),
        (b"P7\nWIDTH 1\n", "this is PAM"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "this is a Git LFS pointer, not the file itself"),
        (encoded(solid((1, 2, 3)), "ICO"), "this is ICO"),
        (b"%PDF-1.7 ...", "this is PDF"),
        (b"just some words", "no image type was recognised"),
        (b"\xff\xd8\xff", "damaged or truncated JPEG"),
    ],
)
def test_refused_with_the_name_and_the_reason(data, message):
    with pytest.raises(ImageError, match=message) as raised:
        decode_rgb(data, "holiday.jpg")
    assert str(raised.value).startswith("holiday.jpg: ")


def test_refusals_name_the_types_that_are_read():
    with pytest.raises(ImageError, match=", ".join(FORMATS)):
        decode_rgb(encoded(solid((1, 2, 3)), "ICO"), "scan.jpg")


def huge(kind: str) -> bytes:
    """A few bytes that claim 60,000 x 60,000 pixels (a frame larger than its screen, for GIF)."""
    if kind == "PNG":
        return png(60_000, 60_000, 8, 2, b"\0")
    if kind == "BMP":
        return encoded(solid((1, 2, 3)), "BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + b"\1\0\x18\0" + bytes(24)
    if kind == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b",\0\0\0\0\x60\xea\x60\xea\0\2\2\x44\1\0;"
    if kind == "JPEG":
        data = bytearray(PHOTO)
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 60_000, 60_000)
        return bytes(data)
    if kind == "PNM":
        return b"P6 60000 60000 255\n\0\0\0"
    if kind == "TIFF":
        fields = {256: 60_000, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60_000, 279: 1}
        entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in fields.items())
        return b"II*\0" + struct.pack("<LH", 8, len(fields)) + entries + bytes(4)
    if kind in ("JPEG 2000", "AVIF"):
        options = {"no_jp2": True} if kind == "JPEG 2000" else {}
        data = bytearray(encoded(solid((1, 2, 3)), kind.replace(" ", ""), **options))
        start = data.index(b"ispe") + 8 if kind == "AVIF" else data.index(b"\xffQ") + 6
        data[start : start + 8] = struct.pack(">LL", 60_000, 60_000)
        return bytes(data)
    return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 16_000)[:3] + struct.pack("<I", 16_000)[:3]


@pytest.mark.parametrize("kind", FORMATS)
def test_bombs_are_refused_before_decoding(kind, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it began to decode"))
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"bomb|89,478,485|no pixels|damaged"):
        decode_rgb(huge(kind), "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "PNM", "JPEG 2000"])
def test_bombs_are_called_by_their_size(kind):
    with pytest.raises(ImageError, match="holds 60000x60000 pixels, more than the 89,478,485 allowed"):
        decode_rgb(huge(kind), "bomb")


def test_an_image_so_thin_that_resizing_would_explode():
    strip = encoded(Image.new("RGB", (60_000, 1)))
    assert decode_rgb(strip, "strip").shape == (1, 60_000, 3)
    with pytest.raises(ImageError, match="strip: would become 15360000x256 pixels"):
        prepare(strip, "strip", Resizing(256, 256, 256))


def test_a_compressed_text_bomb_in_a_png():
    import zlib

    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100_000_000)))
    with pytest.raises(ImageError, match="damaged"):
        decode_rgb(png(1, 1, 8, 2, b"\0\1\2\3", text), "note.png")


def test_unreadable_paths_are_image_errors(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        read_rgb(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_rgb(tmp_path)
    odd = tmp_path / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    odd.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"caf\\xe9") as raised:
        read_rgb(odd)
    str(raised.value).encode("ascii")


def assert_decoded_or_refused(data: bytes) -> None:
    """RGB in bytes, or an ImageError: nothing else."""
    try:
        pixels = decode_rgb(data, "fuzz")
    except ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


HEADS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"GIF89a",
    b"RIFF\x00\x01\x00\x00WEBPVP8 ",
    b"II*\0\x08\0\0\0",
    b"P5 2 2 ",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x18ftypavif",
]


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300))
def test_random_bytes_never_escape(head, tail):
    assert_decoded_or_refused(head + tail)


SAMPLES = [
    PHOTO,
    encoded(Image.new("CMYK", (9, 9), (1, 2, 3, 4)), "JPEG"),
    encoded(solid((1, 2, 3))),
    encoded(Image.new("P", (9, 9), 3)),
    encoded(solid((1, 2, 3)), "BMP"),
    encoded(solid((1, 2, 3)), "GIF"),
    encoded(solid((1, 2, 3)), "WEBP"),
    encoded(solid((1, 2, 3)), "TIFF"),
    encoded(solid((1, 2, 3)), "TIFF", compression="tiff_lzw"),
    encoded(solid((1, 2, 3)), "AVIF"),
    encoded(solid((1, 2, 3)), "JPEG2000"),
    encoded(solid((1, 2, 3)), "PPM"),
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_files_never_escape(data):
    image = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    assert_decoded_or_refused(bytes(image[: data.draw(st.integers(1, len(image)))]))
