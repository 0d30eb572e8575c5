import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from image_files import chunk, encoded, png, solid
from PIL import Image

from alexnet_io.decoding import Resizing, decode_rgb, prepare, resize_and_center_crop, resize_exact
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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_every_accepted_type(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    decoded = decode_rgb(encoded(solid((200, 100, 50)), kind, **options), "photo.txt")
    assert decoded.shape == (8, 10, 3)
    np.testing.assert_allclose(decoded, solid((200, 100, 50)), atol=1)
    assert decoded.flags.writeable  # torch.from_numpy warns about read-only arrays


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.fromarray(solid(color)) for color in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert only_color(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == (255, 0, 0)


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


def with_damaged_exif(jpeg: bytes) -> bytes:
    """EXIF whose horizontal resolution lies beyond its end."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHLL", 1, 0x011A, 5, 1, 0x7FFF)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[20:]


def test_damaged_exif_is_no_concern():
    plain = encoded(solid((10, 20, 30), 16, 24), "JPEG")
    damaged = with_damaged_exif(plain)
    with warnings.catch_warnings(record=True) as seen:  # the fault is really there: Pillow alone complains
        warnings.simplefilter("always")
        Image.open(io.BytesIO(damaged))
    assert [str(warning.message) for warning in seen] == ["Truncated File Read"]
    np.testing.assert_array_equal(decode_rgb(damaged, "image"), decode_rgb(plain, "image"))


def test_odd_animation_headers_do_not_warn():
    odd = chunk(b"acTL", struct.pack(">II", 0, 0))  # an animation of no frames
    assert only_color(png(1, 1, 8, 2, b"\0\1\2\3", odd)) == (1, 2, 3)


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
