import io
import pickle
import struct
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from image_files import chunk, encoded, png, solid
from PIL import AvifImagePlugin, Image, WebPImagePlugin, features

from alexnet_io.data.decoding import (
    ImageError,
    Resizing,
    decode_rgb,
    prepare,
    prepare_first,
    resize_and_center_crop,
    resize_exact,
)
from alexnet_io.data.image_types import EXTENSIONS, FORMATS, sniff_format
from alexnet_io.errors import UserError


def only_color(data: bytes) -> tuple[int, ...]:
    """The color of an image that should have one color and the shape (height, width, 3)."""
    pixels = decode_rgb(data, "image")
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    colors = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colors) == 1
    return tuple(colors[0].tolist())


def test_cmyk_jpeg_is_not_its_first_three_channels():
    assert only_color(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG")) == (255, 0, 0)


def test_ycck_jpeg():
    """Marked YCCK, the stored (200, 128, 128, 255) is luminance 200 without chroma: 255 - 200 = 55 after Adobe's
    inversion. Read as CMYK it would be (200, 128, 128)."""
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (55, 127, 127, 0)), "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2  # the transform byte of the marker
    assert only_color(bytes(data)) == (55, 55, 55)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (100, 100, 100)),
        ("RGBA", (255, 0, 0, 0), (255, 0, 0)),
        ("RGBA", (10, 20, 30, 128), (10, 20, 30)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_modes_become_rgb_and_alpha_is_dropped(mode, color, expected):
    assert only_color(encoded(Image.new(mode, (9, 7), color))) == expected


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128])])
def test_palette_is_looked_up(transparency):
    image = Image.new("P", (5, 4), 1)
    image.putpalette([0, 0, 0, 9, 99, 199])
    options = {} if transparency is None else {"transparency": transparency}
    assert only_color(encoded(image, **options)) == (9, 99, 199)


def test_sixteen_bit_grey_is_divided_by_257():
    values = np.arange(65536).reshape(256, 256)
    scanlines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = decode_rgb(png(256, 256, 16, 0, scanlines), "image")
    expected = np.rint(values / 257).astype(np.uint8)  # 257 is odd, so there are no ties
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=-1))
    assert pixels.reshape(-1, 3)[40000].tolist() == [156, 156, 156]  # Pillow alone gives 255


def test_sixteen_bit_color_keeps_the_high_byte():
    assert only_color(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 40000, 0, 65535))) == (40000 >> 8, 0, 255)


WRITTEN = [  # Pillow's name of the type, and how it is written
    ("PNG", {}),
    ("BMP", {}),
    ("GIF", {}),
    ("WEBP", {"lossless": True}),
    ("JPEG", {"quality": 100}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate"}),
    ("TIFF", {"compression": "jpeg", "quality": 100}),
    ("TIFF", {"big_tiff": True}),
    ("AVIF", {"quality": 100}),
    ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
    ("PPM", {}),
]


@pytest.mark.parametrize(("kind", "options"), WRITTEN)
def test_every_accepted_type(kind, options):
    decoded = decode_rgb(encoded(solid((200, 100, 50)), kind, **options), "photo.txt")
    assert decoded.shape == (8, 10, 3)
    np.testing.assert_allclose(decoded, solid((200, 100, 50)), atol=2 if kind == "AVIF" else 1)
    assert decoded.flags.writeable  # torch.from_numpy warns about read-only arrays


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_several(kind):
    frames = [Image.fromarray(solid(color)) for color in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    for more in (True, False):
        data = encoded(frames[0], kind, **options, **({"save_all": True, "append_images": frames[1:]} if more else {}))
        pixels, several = prepare_first(data, "frames", Resizing(8, 10))
        np.testing.assert_allclose(pixels, solid((255, 0, 0)), atol=2 if kind == "AVIF" else 0)
        assert several is more


def test_an_animation_that_is_damaged_after_its_first_frame():
    frames = [Image.fromarray(solid(color)) for color in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert only_color(data[:-20]) == (255, 0, 0)


def tiff(pixels: np.ndarray, bits: int, **tags: int) -> bytes:
    """Uncompressed grey TIFF; samples of 12 bits are packed two in three bytes."""
    height, width = pixels.shape
    content = pixels.astype("<u2").tobytes()
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(int)
        content = bytes(b for x, y in pairs for b in (x >> 4, (x & 15) << 4 | y >> 8, y & 255))
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: len(content)}
    fields |= {int(name.lstrip("t")): value for name, value in tags.items()}
    fields[273] = 8 + 2 + 12 * len(fields) + 4
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<LH", 8, len(fields)) + entries + bytes(4) + content


@pytest.mark.parametrize(("bits", "white_is_zero"), [(16, False), (16, True), (12, False)])
def test_grey_tiff_of_more_than_eight_bits_covers_the_whole_range(bits, white_is_zero):
    most = 2**bits - 1
    values = np.linspace(0, most, 64).round().astype(np.int64).reshape(8, 8)
    decoded = decode_rgb(tiff(most - values if white_is_zero else values, bits, t262=not white_is_zero), "scan")
    expected = np.floor(values / most * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize(("mode", "color"), [("F", 0.5), ("LAB", (50, 0, 0))])
def test_pixels_that_have_no_8_bit_form_are_refused_with_what_to_do(mode, color):
    with pytest.raises(ImageError, match=f"scan: pixels of kind {mode} are not supported; save it as 8-bit RGB"):
        decode_rgb(encoded(Image.new(mode, (4, 4), color), "TIFF"), "scan")


@pytest.mark.parametrize(
    ("kind", "plugin", "feature"), [("AVIF", AvifImagePlugin, "avif"), ("WEBP", WebPImagePlugin, "webp")]
)
def test_a_pillow_without_the_codec_says_so(monkeypatch, kind, plugin, feature):
    data = encoded(solid((1, 2, 3)), kind)
    monkeypatch.setattr(plugin, "SUPPORTED", False)
    monkeypatch.delattr(plugin, f"_{feature}")
    monkeypatch.setattr(features, "check", lambda name: name != feature)
    with pytest.raises(
        ImageError, match=rf"^a: this Pillow \(.*\) was built without {feature} and can't read {kind}: in"
    ):
        decode_rgb(data, "a")


def test_a_jpeg_2000_without_its_codec(monkeypatch):
    data = encoded(solid((1, 2, 3)), "JPEG2000")
    monkeypatch.delattr(Image.core, "jpeg2k_decoder")
    monkeypatch.setattr(features, "check", lambda name: name != "jpg_2000")
    with pytest.raises(ImageError, match="built without jpg_2000 and can't read JPEG 2000"):
        decode_rgb(data, "a")


def test_every_extension_is_of_a_type_that_is_read():
    Image.init()
    theirs = {"JPEG 2000": "JPEG2000", "PNM": "PPM"}
    known = {theirs.get(name, name) for name in FORMATS}
    assert {Image.registered_extensions()[extension] for extension in EXTENSIONS} == known
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) <= set(EXTENSIONS)


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        (b"avif\0\0\0\0avifmif1", "AVIF"),
        (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"heic\0\0\0\0mif1heic", "HEIF or video"),
    ],
)
def test_avif_is_told_from_its_relatives(brands, kind):
    assert sniff_format((len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands) == kind


def test_first_picture_of_a_phones_jpeg():
    frames = [Image.fromarray(solid(color)) for color in ((250, 0, 0), (0, 0, 250))]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode_rgb(data, "phone"), solid((250, 0, 0)), atol=4)


def test_exif_orientation_is_ignored_as_by_torchvision():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(solid((1, 2, 3), height=16, width=24), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x0112] == 6
    assert decode_rgb(data, "image").shape == (16, 24, 3)


def test_one_pixel():
    assert only_color(encoded(solid((4, 5, 6), 1, 1))) == (4, 5, 6)
    assert prepare(encoded(solid((4, 5, 6), 1, 1)), "dot", Resizing(7, 7, 9)).shape == (7, 7, 3)


def with_damaged_exif(jpeg: bytes, before: bytes = b"") -> bytes:
    """EXIF whose horizontal resolution lies beyond its end, after the bytes `before`."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHLL", 1, 0x011A, 5, 1, 0x7FFF)
    return jpeg[:2] + before + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[20:]


@pytest.mark.parametrize(
    "before", [b"", b"\xff", b"\xff\xff\xff", b"\xff\xfe\0\4hi\xff", b"\xff\xfe\0\4hi\0\0", b"\xff\xd0"]
)
def test_damaged_exif_is_no_concern(before):
    """Wherever it stands: after bytes that fill up, junk, a comment, a marker without a length."""
    plain = encoded(solid((10, 20, 30), 16, 24), "JPEG")
    damaged = with_damaged_exif(plain, before)
    with warnings.catch_warnings(record=True) as seen:  # the fault is really there: Pillow alone complains
        warnings.simplefilter("always")
        Image.open(io.BytesIO(damaged))
    assert [str(warning.message) for warning in seen] == ["Truncated File Read"]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(decode_rgb(damaged, "image"), decode_rgb(plain, "image"))
    assert seen == []


def noisy_tiff() -> bytes:
    """Whole, but for a tag whose content lies beyond the end."""
    whole = tiff(np.zeros((4, 4), np.uint16), 16, t65000=0)
    return whole.replace(struct.pack("<HHLL", 65000, 4, 1, 0), struct.pack("<HHLL", 65000, 2, 9999, 0xFFFF))


NOISY = {
    "an animation of no frames": png(1, 1, 8, 2, b"\0\0\0\0", chunk(b"acTL", struct.pack(">II", 0, 0))),
    "a tag beyond the end": noisy_tiff(),
}


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("how", ["always", "error"])
def test_pillows_warnings_reach_nobody(name, how):
    with warnings.catch_warnings(record=True) as seen:  # the fault is really there: Pillow alone complains
        warnings.simplefilter("always")
        Image.open(io.BytesIO(NOISY[name])).load()
    assert seen
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(how)
        assert only_color(NOISY[name]) == (0, 0, 0)
    assert seen == []


def test_warnings_of_others_are_heard_as_before():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_rgb(encoded(solid((1, 2, 3))), "image")
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


def test_nothing_is_printed_about_damaged_files(capfd):
    """In a process of its own, where nobody collects what Pillow logs; C libraries write past Python."""
    lied = tiff(np.zeros((4, 4), np.uint16), 16, t277=30000)  # Pillow logs an error about it
    lzw = bytearray(encoded(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3), "TIFF", compression="tiff_lzw"))
    lzw[20:60] = bytes(40)
    jpeg = encoded(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3), "JPEG")
    jp2 = encoded(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3), "JPEG2000")
    broken = [lied, bytes(lzw), jpeg[:-100], jp2[:-200], *(data[:-3] for data in NOISY.values())]
    code = (
        "import sys, pickle\nfrom alexnet_io.data.decoding import ImageError, decode_rgb\n"
        "for data in pickle.load(sys.stdin.buffer):\n"
        "    try:\n        decode_rgb(data, 'image')\n    except ImageError as error:\n        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(broken), capture_output=True, check=True)
    assert done.stderr == b"" and done.stdout.split().count(b"refused") >= 4


def test_resizing_is_pillows_bilinear_with_antialias():
    row = np.zeros((1, 8, 3), np.uint8)
    row[0, 0] = 255
    assert resize_exact(row, (1, 2))[0, :, 0].tolist() == [46, 0]  # without antialias it would be [0, 0]


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 200), (31, 32), (224, 224), (255, 301), (300, 256), (257, 256), (375, 500)]
)
@pytest.mark.parametrize(("short_side", "crop"), [(256, 224), (256, 227), (32, 24), (33, 32), (64, 64)])
def test_resize_and_crop_are_torchvisions_bit_for_bit(rng, size, short_side, crop):
    from torchvision.transforms.v2 import functional

    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    image: Any = Image.fromarray(rgb)
    theirs = functional.center_crop(functional.resize(image, [short_side]), [crop])
    np.testing.assert_array_equal(resize_and_center_crop(rgb, short_side, crop), np.asarray(theirs))


def test_prepare_is_decoding_and_resizing(rng):
    rgb = rng.integers(0, 256, (37, 53, 3), np.uint8)
    np.testing.assert_array_equal(
        prepare(encoded(rgb), "image", Resizing(24, 24, 32)), resize_and_center_crop(rgb, 32, 24)
    )
    np.testing.assert_array_equal(prepare(encoded(rgb), "image", Resizing(20, 30)), resize_exact(rgb, (20, 30)))


def test_cropping_in_two_steps_is_cropping_in_one(rng):
    """The cache keeps 256x256 and the network sees the central 224x224: as if cut from the resized image."""
    rgb = rng.integers(0, 256, (256, 303, 3), np.uint8)
    kept = resize_and_center_crop(rgb, 256, 256)
    np.testing.assert_array_equal(kept[16:240, 16:240], resize_and_center_crop(rgb, 256, 224))


@pytest.mark.parametrize(("height", "width", "short_side"), [(0, 4, None), (4, 4, 0), (257, 4, 256)])
def test_impossible_sizes_are_refused(height, width, short_side):
    with pytest.raises(UserError, match="at least"):
        Resizing(height, width, short_side)
