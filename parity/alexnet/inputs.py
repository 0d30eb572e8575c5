"""The networks' input of both frameworks, from stored images to normalised crops, in evaluation and with given draws.

Frames differ in what rounding decides: margins of 1, 3 and 5 pixels, whose half is rounded down, up and down again,
wider in one direction than in the other, and crops of odd side, whose mirror image keeps a column. Draws hold the first
and the last position of a crop in both directions, mirrored and not; all else about them is a matter of chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import NORMALIZATIONS, TrainSettings
from alexnet_io.data.image_statistics import TrainingStatistics
from jax_alexnet import augment as jax_augment
from parity.alexnet import data_causes
from parity.alexnet.data_causes import Seen
from parity.bounds.magnitudes import Bound, running_bound
from parity.bounds.torch_rounding import RunningError
from parity.reference.torch_tensors import DTYPES, to_numpy
from parity.reports.rows import Row, compare_arrays
from torch_ref import augment as torch_augment
from torch_ref import resolved_settings

# Name of a row, settings, and draws or None for evaluation.
Asked = tuple[str, CompleteSettings, torch_augment.Draws | None]

INPUT_DTYPES = ("float64", "float32")
EXAMPLES = 8


@dataclass(frozen=True)
class Frame:
    """Stored images, height and width, and the side of the crops."""

    stored: tuple[int, int]
    size: int

    def __str__(self) -> str:
        return f"{self.stored[0]}x{self.stored[1]} to {self.size}"


FRAMES = (Frame((28, 28), 24), Frame((27, 29), 24), Frame((29, 27), 24), Frame((30, 25), 23), Frame((23, 24), 23))


def rows(seed: int, dtypes: tuple[str, ...] = INPUT_DTYPES) -> list[Row]:
    """Every normalisation of the first frame in every dtype; of the others those that their margins matter to."""
    found = []
    for number, frame in enumerate(FRAMES):
        rng = np.random.default_rng([seed, 5, number])
        images, measured, draws = _images(frame, rng), _statistics(frame, rng), given_draws(frame, rng)
        names = NORMALIZATIONS if number == 0 else ("mean_image", "unit")
        asked = [each for normalize in names for each in _stages(frame, normalize, draws)]
        for dtype in dtypes if number == 0 else dtypes[:1]:
            ours = jax_inputs(images, asked, measured, dtype)
            for made, (name, settings, drawn) in zip(ours, asked, strict=True):
                row = Row("data", "input", "input", name, dtype, order=2, kind="data")
                theirs, error = torch_input(images, drawn, settings, measured, dtype)
                compare_arrays(row, made, theirs, _bound(theirs, error, dtype))
                if not row.equal:
                    seen = Seen(images, drawn, settings, measured)
                    data_causes.attach(row, data_causes.of_input(seen, made, theirs, dtype))
                found.append(row)
        found.append(_positions(frame))
    return found


def _stages(frame: Frame, normalize: str, draws: torch_augment.Draws) -> Iterator[Asked]:
    where = "" if frame == FRAMES[0] else f", {frame}"
    plain = _settings(frame, normalize)
    yield f"{normalize} evaluation{where}", plain, None
    # Central crops, some of them mirrored: what is left out of the draws must be neutral in them.
    top, left = data_causes.centre(frame.stored, frame.size)
    neutral = draws._replace(
        top=np.full_like(draws.top, top), left=np.full_like(draws.left, left), noise=np.zeros_like(draws.noise)
    )
    yield f"{normalize} flips{where}", replace(plain, flip=True), neutral
    yield f"{normalize} training{where}", replace(plain, crop=True, flip=True, color_noise=True), draws


def _settings(frame: Frame, normalize: str) -> CompleteSettings:
    """Of a run that does nothing to its images at random; only what is done to images matters of them here."""
    asked = TrainSettings(
        data="synthetic", image_size=frame.size, normalize=normalize, crop=False, flip=False, color_noise=False
    )
    return resolved_settings.resolve(asked)


def given_draws(frame: Frame, rng: np.random.Generator) -> torch_augment.Draws:
    """Crops at all four corners, mirrored and not, and anywhere; colour noise that float32 holds."""
    last = [n - frame.size for n in frame.stored]
    top, left = (np.where(rng.random(EXAMPLES) < 0.5, 0, n) for n in last)
    top[:4], left[:4] = (0, 0, last[0], last[0]), (0, last[1], 0, last[1])
    top[6:], left[6:] = (rng.integers(0, n + 1, EXAMPLES - 6) for n in last)
    noise = (0.1 * rng.standard_normal((EXAMPLES, 3))).astype(np.float32).astype(np.float64)
    flip = np.array([False, True, False, True, True, False, True, False])
    return torch_augment.Draws(top, left, flip, noise)


def _images(frame: Frame, rng: np.random.Generator) -> NDArray[np.uint8]:
    images = rng.integers(0, 256, (EXAMPLES, *frame.stored, 3), np.uint8)
    # Every brightness at least once: the division by 255 rounds differently for each.
    images[0].reshape(-1)[: 3 * 256] = np.repeat(np.arange(256, dtype=np.uint8), 3)
    return images


def _statistics(frame: Frame, rng: np.random.Generator) -> TrainingStatistics:
    vectors = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return TrainingStatistics(
        mean_image=rng.uniform(80, 140, (*frame.stored, 3)).astype(np.float32),
        mean=rng.uniform(80, 140, 3),
        std=rng.uniform(40, 70, 3),
        eigenvalues=np.array([9000.0, 900.0, 90.0]),
        eigenvectors=vectors,
    )


def _positions(frame: Frame) -> Row:
    """Where both frameworks' own draws put crops that aren't random: in the centre, to the pixel."""
    settings = replace(_settings(frame, "unit"), flip=True)
    theirs = torch_augment.draw(settings, 0, 0, EXAMPLES, frame.stored)
    places = jnp.arange(EXAMPLES, dtype=jnp.int32)
    ours = jax_augment.draw(jax.random.key(0), places, jax_augment.Augmentation.of(settings), frame.stored)
    row = Row("data", "input", "input", f"central position, {frame}", "int", order=2, kind="data")
    a, b = (np.stack([np.asarray(side.top), np.asarray(side.left)]).astype(np.int64) for side in (ours, theirs))
    compare_arrays(row, a, b, None)
    if not row.equal:
        data_causes.attach(row, data_causes.of_positions(frame.stored, frame.size, a[:, 0], b[:, 0]))
    return row


def _bound(reference: NDArray, error: NDArray | None, dtype: str) -> Bound:
    """One unit in the last place of the result, or of what cancelled on the way to it.

    XLA multiplies by 1/255 where PyTorch divides by 255, which may differ by one unit in the last place of x / 255;
    the mean that is subtracted afterwards cancels, so that a small result carries the unit of a larger number. The
    running error bound of the reference says how much; sums of colour noise may be ordered otherwise as well.
    """
    spacing = np.abs(np.spacing(reference.astype(dtype))).astype(np.float64)
    return Bound(1, spacing if error is None else np.maximum(running_bound(1, error).allowed, spacing))


def jax_inputs(images: NDArray, asked: list[Asked], measured: TrainingStatistics, dtype: str) -> list[NDArray]:
    """What the JAX network sees, compiled as in training or, without draws, in evaluation; NHWC, one for each asked."""
    wide = dtype == "float64"
    whole = np.int64 if wide else np.int32  # as `jax_augment.draw` gives them
    augmentations = [jax_augment.Augmentation.of(settings) for _, settings, _ in asked]
    arrays = [jax_augment.statistics_for(each, measured) for each in augmentations]
    drawn = [
        None if d is None else (d.top.astype(whole), d.left.astype(whole), d.flip, d.noise.astype(np.float32))
        for *_, d in asked
    ]

    def made(images: Any, drawn: Any, arrays: Any) -> list[Any]:
        return [
            jax_augment.apply(images, None, augmentation.for_evaluation, statistics)
            if d is None
            else jax_augment.apply(images, jax_augment.Draws(*d), augmentation, statistics)
            for augmentation, d, statistics in zip(augmentations, drawn, arrays, strict=True)
        ]

    with jax.enable_x64(wide):  # one program for all: compiling is what takes time
        return [np.asarray(x) for x in jax.jit(made)(images, drawn, arrays)]


def torch_input(
    images: NDArray, draws: Any, settings: CompleteSettings, measured: TrainingStatistics, dtype: str
) -> tuple[NDArray, NDArray | None]:
    """What the PyTorch network sees, moved to NHWC, and the error that its roundings may add up to."""
    named = {**torch_augment.statistics_for(settings, measured), "zero": np.zeros((), np.float32)}
    statistics = {name: torch.from_numpy(np.asarray(a)).to(DTYPES[dtype]) for name, a in named.items()}
    mode = RunningError(DTYPES[dtype])
    with mode:
        made = torch_augment.network_input(images, draws, settings, statistics)
    error = mode.get(made).error
    moved = None if error is None else to_numpy(error).transpose(0, 2, 3, 1)
    return to_numpy(made).transpose(0, 2, 3, 1), moved
