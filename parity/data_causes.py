"""Naming what is wrong before the network: resizing, normalisation, learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes import Cause, explains
from parity.judging import farthest, within
from parity.rows import Row

_IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def attach(row: Row, causes: list[Cause]) -> None:
    """Write causes into a row."""
    row.causes, row.cause_keys = [str(c) for c in causes], [c.key for c in causes]


def of_input(crops: NDArray, normalize: str, arrays: dict[str, NDArray], ours: NDArray, theirs: NDArray) -> list[Cause]:
    """Causes of a difference between two normalised inputs (N, H, W, 3) made of the same crops (uint8)."""
    if ours.shape != theirs.shape:
        return []
    pixels = crops.astype(np.float64)
    right = _normalized(pixels, normalize, arrays)
    before = farthest(ours, theirs)
    tolerance = 1e-5 * max(float(np.max(np.abs(theirs))), 1.0)
    if not (within(farthest(right, theirs), tolerance) or within(farthest(right, ours), tolerance)):
        return _related(ours, theirs, before, tolerance)  # colour noise moved both: only their relation is known
    for side, wrong, other in (("jax", ours, theirs), ("torch", theirs, ours)):
        if not within(farthest(right, other), tolerance):
            continue
        for key, text, predicted in _wrong_inputs(pixels, normalize, arrays):
            after = farthest(predicted, wrong)
            if explains(before, after, tolerance):
                return [Cause(key, side, text, before, after)]
    return _related(ours, theirs, before, tolerance)


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


def of_rates(ours: NDArray, theirs: NDArray, per_epoch: int) -> list[Cause]:
    """Causes of a difference between two sequences of learning rates, one a step."""
    before = farthest(ours, theirs)
    for shift, what in ((1, "one step"), (per_epoch, "one epoch")):
        for side, late, other in (("jax", ours, theirs), ("torch", theirs, ours)):
            if np.array_equal(late[shift:], other[:-shift]):
                return [Cause("rate_late", side, f"the learning rate comes {what} late", before, 0.0)]
    factor = float(ours[0] / theirs[0])
    if factor != 1 and np.allclose(ours, theirs * factor, rtol=1e-12, atol=0):
        return [Cause("rate_scaled", "between", f"JAX's learning rate is PyTorch's times {factor:.6g}", before, 0.0)]
    return []
