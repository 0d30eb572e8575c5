"""Planted bugs in preprocessing and schedules."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jax_alexnet import augment as jax_augment
from parity import data
from parity.mutants.planting import patched
from parity.report import Report
from torch_ref import augment as torch_augment

Entry = tuple[str, int, str, str, tuple[str, ...], tuple[str, ...], Callable[[], Report]]


def data_mutants() -> Iterator[Entry]:
    """Id, number, title, side, rows where it may be seen first, causes, and what runs it."""
    owners: tuple[tuple[str, Any], ...] = (("jax", jax_augment), ("torch", torch_augment))
    for side, owner in owners:
        title = "mean and deviation in BGR order"
        causes = ("statistics_bgr", "mean_bgr")
        yield f"30-statistics-bgr-{side}", 30, title, side, ("input",), causes, _bgr(owner)
    for side, owner in owners:
        title = "division by 255 left out"
        yield f"31-division-{side}", 31, title, side, ("input",), ("division_missing",), _undivided(owner)
    yield "32-antialias-jax", 32, "resize without antialias", "jax", ("resize",), ("resize_antialias",), _no_antialias
    for side in ("jax", "torch"):
        title = "learning rate one step late"
        yield f"33-rate-late-{side}", 33, title, side, ("learning rate",), ("rate_late",), _late(side)


def _inputs_only(sides: data.Sides | None = None) -> Report:
    return Report(data.input_rows(sides or data.real_sides(), 0))


def _bgr(owner: Any) -> Callable[[], Report]:
    def run() -> Report:
        mean, std = owner.IMAGENET_MEAN, owner.IMAGENET_STD
        with patched(owner, "IMAGENET_MEAN", mean[::-1]), patched(owner, "IMAGENET_STD", std[::-1]):
            return _inputs_only()

    return run


def _undivided(owner: Any) -> Callable[[], Report]:
    right = owner.normalized

    def without(pixels: Any, normalize: str, statistics: Any) -> Any:
        # Pixels that come 255 times too bright: as if nobody had divided.
        return right(pixels * 255 if normalize in ("half", "unit", "imagenet") else pixels, normalize, statistics)

    def run() -> Report:
        with patched(owner, "normalized", without):
            return _inputs_only()

    return run


def _no_antialias() -> Report:
    import jax

    def resize(path: Path, short_side: int, crop: int) -> NDArray:
        from alexnet_io.decoding import read_rgb, resized_size

        image = read_rgb(path)
        size = resized_size(image.shape[0], image.shape[1], short_side)
        made = jax.image.resize(image.astype(np.float32), (*size, 3), "bilinear", antialias=False)
        top, left = (round((n - crop) / 2) for n in size)
        cropped = np.asarray(made)[top : top + crop, left : left + crop]
        return np.clip(np.rint(cropped), 0, 255).astype(np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        _picture(Path(folder) / "one.png")
        return Report(data.decoding_rows(Path(folder), data.real_sides()._replace(resize=resize), 1))


def _picture(path: Path) -> None:
    """Stripes, a gradient and noise: detail that shrinking must average."""
    from PIL import Image

    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:96, :128]
    shades = (columns % 3 * 80 + rows) % 256
    pixels = np.stack([shades, columns * 2 % 256, rng.integers(0, 256, shades.shape)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def _late(side: str) -> Callable[[], Report]:
    def run() -> Report:
        sides = data.real_sides()
        name = f"{side}_rate"
        right = getattr(sides, name)

        def late(what: Any, epoch: int, step: int) -> float:
            per_epoch = step // epoch if epoch else max(step + 1, 2)
            before = max(step - 1, 0)
            return right(what, epoch if step % max(per_epoch, 1) or not epoch else epoch - 1, before)

        return Report(data.rate_rows(sides._replace(**{name: late})))

    return run
