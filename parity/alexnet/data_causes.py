"""Naming what is wrong before the network: resizing, cropping, normalisation.

Pillow is imported where pictures are compared: comparing networks does without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.image_statistics import TrainingStatistics
from parity.bounds.judging import farthest, within
from parity.causes.layer import precision as precision_causes
from parity.causes.layer.parameters import Cause, explains
from parity.reports.rows import Row

_IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def attach(row: Row, causes: list[Cause]) -> None:
    """Write causes into a row."""
    row.causes, row.cause_keys = [str(c) for c in causes], [c.key for c in causes]


@dataclass(frozen=True)
class Seen:
    """What both sides made their input of.

    Attributes:
        images: uint8 (N, height, width, 3) as stored.
        draws: `top`, `left`, `flip` and `noise`, or None for the central crop of evaluation.
        settings: what is done to the images.
        measured: statistics of the training set.
    """

    images: NDArray
    draws: Any
    settings: CompleteSettings
    measured: TrainingStatistics

    @property
    def arrays(self) -> dict[str, NDArray]:
        """The normalisation's, in float64 of what float32 holds."""
        size, m = self.settings.image_size, self.measured
        top, left = centre(m.mean_image.shape[:2], size)
        found = {"mean_image": m.mean_image[top : top + size, left : left + size], "mean": m.mean, "std": m.std}
        return {name: np.asarray(array, np.float32).astype(np.float64) for name, array in found.items()}

    def crops(self, down: int = 0, right: int = 0, flip: str = "as drawn") -> NDArray | None:
        """Crops in float64, moved by so many pixels, mirrored `as drawn`, `never`, `otherwise` or `upside down`."""
        n, size = len(self.images), self.settings.image_size
        tops, lefts = ([x] * n for x in centre(self.images.shape[1:3], size))
        flips = [False] * n
        if self.draws is not None:
            tops, lefts, flips = self.draws.top, self.draws.left, self.draws.flip
        made = []
        for image, top, left, mirrored in zip(self.images, tops, lefts, flips, strict=True):
            rows, columns = (slice(start, start + size) for start in (int(top) + down, int(left) + right))
            part = image[rows, columns]
            if min(rows.start, columns.start) < 0 or part.shape[:2] != (size, size):
                return None
            turned = {"never": False, "otherwise": not mirrored}.get(flip, bool(mirrored))
            made.append((part[::-1] if flip == "upside down" else part[:, ::-1]) if turned else part)
        return np.stack(made).astype(np.float64) + self._colour()

    def _colour(self) -> NDArray | float:
        if self.draws is None or not self.settings.color_noise:
            return 0.0
        found = self.measured.eigenvalues / 255**2, self.measured.eigenvectors
        values, vectors = (np.asarray(array, np.float32).astype(np.float64) for array in found)
        return ((self.draws.noise * values * 255) @ vectors.T)[:, None, None, :]


def centre(stored: tuple[int, ...], size: int) -> tuple[int, int]:
    """First row and column of a central crop as torchvision's CenterCrop takes it: int(round((n - size) / 2.0))."""
    return round((stored[0] - size) / 2), round((stored[1] - size) / 2)


def of_input(seen: Seen, ours: NDArray, theirs: NDArray, dtype: str) -> list[Cause]:
    """Causes of a difference between two normalised inputs (N, H, W, 3) made of the same images and draws."""
    if ours.shape != theirs.shape:
        return []
    normalize, arrays, pixels = seen.settings.normalize, seen.arrays, seen.crops()
    before = farthest(ours, theirs)
    tolerance = 1e-5 * max(float(np.max(np.abs(theirs))), 1.0)
    if before <= tolerance or pixels is None:
        return precision_causes.of_values(theirs, ours, dtype)
    right = _normalized(pixels, normalize, arrays)
    for side, wrong, other in (("jax", ours, theirs), ("torch", theirs, ours)):
        if not within(farthest(right, other), tolerance):
            continue
        for key, text, predicted in itertools.chain(_wrong_inputs(pixels, normalize, arrays), _wrong_crops(seen)):
            after = farthest(predicted, wrong)
            if explains(before, after, tolerance):
                return [Cause(key, side, text, before, after)]
    return _related(ours, theirs, before, tolerance)


def _wrong_crops(seen: Seen) -> Iterator[tuple[str, str, NDArray]]:
    normalize, arrays = seen.settings.normalize, seen.arrays
    for flip, key, text in (
        ("never", "flip_missing", "no image is mirrored"),
        ("otherwise", "flip_inverted", "the images that shouldn't be are mirrored"),
        ("upside down", "flip_vertical", "images are mirrored top to bottom"),
    ):
        if (crops := seen.crops(flip=flip)) is not None:
            yield key, text, _normalized(crops, normalize, arrays)
    for down, right in itertools.product((0, -1, 1), repeat=2):
        moved = _moved(down, right)
        if (crops := seen.crops(down, right)) is not None and (down or right):
            yield "crop_position", f"crops lie {moved}", _normalized(crops, normalize, arrays)
        if normalize == "mean_image":
            size, whole = seen.settings.image_size, seen.measured.mean_image.astype(np.float64)
            top, left = (n + by for n, by in zip(centre(whole.shape[:2], size), (down, right), strict=True))
            mean = whole[max(top, 0) : top + size, max(left, 0) : left + size]
            if mean.shape[:2] != (size, size):
                continue
            pixels = seen.crops()
            if pixels is not None and (down or right):
                yield "mean_image_position", f"the mean image's crop lies {moved}", pixels - mean
            if crops is not None:
                yield "crop_position", f"crops lie {moved}, the mean image's too", crops - mean
    draws = seen.draws
    if draws is not None:
        exchanged = replace(seen, draws=draws._replace(top=draws.left, left=draws.top))
        if (crops := exchanged.crops()) is not None:
            text = "rows and columns of the crops' positions are exchanged"
            yield "crop_exchanged", text, _normalized(crops, normalize, arrays)
        mirrored = np.where(draws.flip, seen.images.shape[2] - seen.settings.image_size - draws.left, draws.left)
        if (crops := replace(seen, draws=draws._replace(left=mirrored)).crops()) is not None:
            text = "images are mirrored before they are cropped"
            yield "flip_before_crop", text, _normalized(crops, normalize, arrays)
        # A start that doesn't fit may be moved in without a word.
        last = [max(n - seen.settings.image_size - 1, 0) for n in seen.images.shape[1:3]]
        top, left = np.minimum(draws.top, last[0]), np.minimum(draws.left, last[1])
        for short, what in (({"top": top}, "row"), ({"left": left}, "column"), ({"top": top, "left": left}, "place")):
            if (crops := replace(seen, draws=draws._replace(**short)).crops()) is not None:
                text = f"the last {what} where a crop may begin is never reached"
                yield "crop_last", text, _normalized(crops, normalize, arrays)


def _moved(down: int, right: int) -> str:
    words = {-1: "before", 1: "behind"}
    told = [f"one {what} {words[by]}" for what, by in (("row", down), ("column", right)) if by]
    return " and ".join(told) or "where they should"


def of_positions(stored: tuple[int, int], size: int, ours: NDArray, theirs: NDArray) -> list[Cause]:
    """Causes of a difference between two central positions, (row, column) each."""
    right = np.array(centre(stored, size))
    before = float(np.max(np.abs(ours - theirs)))
    for side, wrong, other in (("jax", ours, theirs), ("torch", theirs, ours)):
        if np.array_equal(other, right) and np.max(np.abs(wrong - right)) == 1:
            down, across = (int(x) for x in wrong - right)
            return [Cause("crop_position", side, f"central crops lie {_moved(down, across)}", before, 0.0)]
    return []


def _normalized(pixels: NDArray, normalize: str, arrays: dict[str, NDArray]) -> NDArray:
    mean, std = _constants(normalize, arrays)
    return (pixels - mean) / std


def _constants(normalize: str, arrays: dict[str, NDArray]) -> tuple[Any, Any]:
    """Mean and deviation on the 0..255 scale."""
    match normalize:
        case "half":
            return np.full(3, 127.5), np.full(3, 127.5)
        case "unit":
            return np.zeros(3), np.full(3, 255.0)
        case "imagenet":
            return _IMAGENET[0] * 255, _IMAGENET[1] * 255
        case "mean_image":
            return arrays["mean_image"].astype(np.float64), np.ones(3)
        case "channel_mean":
            return arrays["mean"].astype(np.float64), np.ones(3)
    return arrays["mean"].astype(np.float64), arrays["std"].astype(np.float64)


def _wrong_inputs(pixels: NDArray, normalize: str, arrays: dict[str, NDArray]) -> Iterator[tuple[str, str, NDArray]]:
    mean, std = _constants(normalize, arrays)
    swapped = mean[..., ::-1], std[..., ::-1]
    yield "statistics_bgr", "mean and deviation are in BGR order", (pixels - swapped[0]) / swapped[1]
    yield "input_bgr", "the pixels are in BGR order", (pixels[..., ::-1] - mean) / std
    yield "mean_bgr", "the mean is in BGR order", (pixels - swapped[0]) / std
    yield "division_missing", "the division by 255 is left out", (pixels - mean / 255) / (std / 255)
    yield "division_last", "255 divides after the normalisation", (pixels - mean / 255) / (std / 255) / 255
    yield "division_twice", "255 divides twice", (pixels / 255**2 - mean / 255) / (std / 255)
    yield "std_missing", "nothing is divided by the deviation", (pixels - mean) / 255
    yield "mean_missing", "no mean is subtracted", pixels / std
    yield "mean_after", "the mean is subtracted after the division by the deviation", pixels / std - mean / 255
    yield "input_flipped", "the images are mirrored", ((pixels - mean) / std)[:, :, ::-1]
    yield "input_transposed", "rows and columns of the images are exchanged", ((pixels - mean) / std).swapaxes(1, 2)


def _related(ours: NDArray, theirs: NDArray, before: float, tolerance: float) -> list[Cause]:
    scale = float(np.vdot(theirs, ours)) / max(float(np.vdot(theirs, theirs)), 1e-300)
    for key, text, predicted in (
        ("input_bgr", "the channels are reversed", theirs[..., ::-1]),
        ("input_flipped", "the images are mirrored", theirs[:, :, ::-1]),
        ("division_missing", "JAX's input is 255 times PyTorch's", theirs * 255),
        ("division_missing", "PyTorch's input is 255 times JAX's", theirs / 255),
        ("scaled", f"JAX's input is PyTorch's times {scale:.6g}", theirs * scale),
    ):
        after = farthest(predicted, ours)
        if explains(before, after, tolerance * max(scale, 1)):
            return [Cause(key, "between", text, before, after)]
    return []


def of_resize(image: NDArray, short_side: int, crop: int, ours: NDArray, theirs: NDArray) -> list[Cause]:
    """Causes of a difference between two resized images; exact to one step of 255, for roundings of other code."""
    if ours.shape != theirs.shape:
        return []
    before = farthest(ours, theirs)
    for key, text, predicted in _wrong_resizes(image, short_side, crop):
        after = farthest(predicted, ours)
        if within(after, 1.0) and before > 1.0:
            return [Cause(key, "between", f"JAX: {text}", before, after)]
    return []


def _wrong_resizes(image: NDArray, short_side: int, crop: int) -> Iterator[tuple[str, str, NDArray]]:
    from PIL import Image

    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    size = (int(height * scale), short_side) if height > width else (short_side, int(width * scale))
    yield "resize_antialias", "resized without antialias", _cropped(_bilinear(image, size), crop)
    for name in ("NEAREST", "BICUBIC", "LANCZOS", "BOX"):
        filtered = Image.fromarray(image).resize((size[1], size[0]), getattr(Image.Resampling, name))
        yield "resize_filter", f"resized with the filter {name.lower()}", _cropped(np.asarray(filtered), crop)
    top, left = centre(size, crop)
    whole = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        part = whole[max(top + down, 0) : top + down + crop, max(left + right, 0) : left + right + crop]
        if (down or right) and part.shape[:2] == (crop, crop):
            yield "crop_position", f"the central crop lies {_moved(down, right)}", part
    stretched = Image.fromarray(image).resize((short_side, short_side), Image.Resampling.BILINEAR)
    yield "resize_stretched", "stretched to a square", _cropped(np.asarray(stretched), crop)


def _bilinear(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Bilinear interpolation at pixel centres, whatever the scale: every pixel in between is passed over."""
    out = image.astype(np.float64)
    for axis, m in enumerate(size):
        n = out.shape[axis]
        place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.take(out, low, axis) * (1 - share) + np.take(out, np.minimum(low + 1, n - 1), axis) * share
    return out


def _cropped(image: NDArray, crop: int) -> NDArray:
    top, left = (round((n - crop) / 2) for n in image.shape[:2])
    return image[top : top + crop, left : left + crop]
