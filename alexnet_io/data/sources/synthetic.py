"""Made-up images that can be learnt: each class has a pattern of coloured patches, each image adds noise."""

from __future__ import annotations

import numpy as np

from alexnet_io.data.decoding import Resizing, resize_exact
from alexnet_io.data.sources.dataset import DataSet, Split, digest
from alexnet_io.data.sources.specs import nearest
from alexnet_io.errors import UserError

DEFAULTS = {"classes": 10, "train": 2048, "test": 512}
NATIVE_SIZE = 32
_PATCHES = 4  # a class's pattern has 4x4 colours
_NOISE = 64  # grey values, peak


def open_synthetic(options: str, resizing: Resizing | None, seed: int) -> DataSet:
    """Opens `synthetic:classes=10,train=2048,test=512`; what is left out is as here.

    Images are made when they are read, from their split and place, so that any number fits into memory.

    Args:
        options: what follows the colon.
        resizing: the size; None for 32x32.
        seed: another one gives other patterns and noise.

    Raises:
        UserError: an unknown option or an impossible number.
    """
    numbers = _parse(options)
    height, width = (NATIVE_SIZE, NATIVE_SIZE) if resizing is None else (resizing.height, resizing.width)
    classes = numbers["classes"]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, classes])))
    patches = generator.integers(_NOISE, 256 - _NOISE, (classes, _PATCHES, _PATCHES, 3), np.uint8)
    bank = generator.integers(0, 2 * _NOISE, height * width * 3 + 2**16, np.uint8)
    key = digest(str(seed), str(numbers), str((height, width)), patches.tobytes(), bank.tobytes())
    splits = [_split(name, numbers[name], patches, bank, (height, width, 3), key) for name in ("train", "test")]
    names = tuple(f"pattern-{label:0{len(str(classes - 1))}d}" for label in range(classes))
    return DataSet("synthetic", names, splits[0], splits[1])


def _split(
    name: str, count: int, patches: np.ndarray, bank: np.ndarray, shape: tuple[int, int, int], key: str
) -> Split:
    labels = np.arange(count, dtype=np.int32) % len(patches)
    starts = _starts(name, count, len(bank) - shape[0] * shape[1] * 3)
    patterns: dict[int, np.ndarray] = {}

    def fetch(places: np.ndarray) -> np.ndarray:
        images = np.empty((len(places), *shape), np.uint8)
        for image, place in zip(images, places, strict=True):
            label, start = int(labels[place]), int(starts[place])
            if label not in patterns:
                patterns[label] = resize_exact(patches[label], shape[:2]) - np.uint8(_NOISE)
            np.add(patterns[label], bank[start : start + image.size].reshape(shape), out=image)
        return images

    names = [f"{name}-{place:06d}" for place in range(count)]
    return Split(name, labels, names, shape, fetch, digest(key, name))


def _starts(name: str, count: int, room: int) -> np.ndarray:
    """Where in the noise each image begins; the splits share no place."""
    half = room // 2
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([count, len(name)])))
    return generator.integers(0, half, count) + (half if name == "test" else 0)


def _parse(options: str) -> dict[str, int]:
    numbers = dict(DEFAULTS)
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name not in numbers:
            raise UserError(
                f"synthetic images have no option {name!r}{nearest(name, numbers)}; valid: "
                + ", ".join(f"{key}=N" for key in numbers)
            )
        if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= 2**31:
            raise UserError(f"synthetic option {name} needs a whole number from 1, not {value!r}")
        numbers[name] = int(value)
    if numbers["classes"] < 2:
        raise UserError("synthetic images need at least 2 classes: classes=2 or more")
    return numbers
