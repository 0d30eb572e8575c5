"""`parity data`: decoding, preprocessing, augmentation and learning rates of both frameworks.

Pictures are read by the function that both sides use, and once more by torchvision's own transforms on Pillow: the
same bits. Crops, flips and colour noise are drawn once in NumPy and given to both. Learning rates are compared at
every step of 90 epochs; a plateau's with one made-up history of losses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_io import decoding
from alexnet_io.errors import UserError
from alexnet_io.train_settings import NORMALIZATIONS, RECIPES, TrainSettings
from jax_alexnet import augment as jax_augment
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import schedules as jax_schedules
from parity import data_causes
from parity.bounds import Bound, running_bound
from parity.report import Report
from parity.rounding import RunningError
from parity.rows import Row, compare_arrays
from parity.torch_side import DTYPES, to_numpy
from torch_ref import augment as torch_augment
from torch_ref import recipes as torch_recipes
from torch_ref import schedules as torch_schedules

EPOCHS = 90
SIZE, STORED = 24, 28
INPUT_DTYPES = ("float64", "float32")


class Sides(NamedTuple):
    """The functions under comparison; mutants replace one of them.

    Attributes:
        resize: shared by both frameworks: (path, short side, crop) to uint8 pixels.
        jax_input: (images, draws, settings, statistics) to NHWC input, float.
        torch_input: likewise, in NCHW.
        jax_rate: (settings, epoch, step) to the weights' learning rate.
        torch_rate: (recipe, epoch, step) to the same.
    """

    resize: Callable[[Path, int, int], NDArray]
    jax_input: Callable[..., NDArray]
    torch_input: Callable[..., tuple[NDArray, NDArray | None]]
    jax_rate: Callable[[TrainSettings, int, int], float]
    torch_rate: Callable[[Any, int, int], float]


def run(
    folder: Path | None = None,
    *,
    sides: Sides | None = None,
    seed: int = 0,
    pictures: int = 16,
    dtype: str = "all",
) -> Report:
    """Compare everything between a file and the network's input, and the learning rates.

    Args:
        folder: real pictures; the decoding rows are left out, and listed as not exercised, if None.
        sides: functions to compare; the real ones if None.
        seed: of made-up pixels and draws.
        pictures: how many of the folder are read, spread over it.
        dtype: of the networks' input: `float64`, `float32` or `all`.
    """
    chosen = sides or real_sides()
    rows: list[Row] = []
    missing: list[str] = []
    if folder is None:
        missing.append("decoding: name a folder of pictures with --images")
    else:
        rows += decoding_rows(folder, chosen, pictures)
    rows += input_rows(chosen, seed, INPUT_DTYPES if dtype == "all" else (dtype,))
    rows += rate_rows(chosen)
    return Report(rows, missing, {"seed": seed, "images": str(folder)})


def real_sides() -> Sides:
    """What the two frameworks really run."""
    return Sides(_shared_resize, jax_input, torch_input, jax_schedules.learning_rate, _torch_rate)


def _shared_resize(path: Path, short_side: int, crop: int) -> NDArray:
    return decoding.resize_and_center_crop(decoding.read_rgb(path), short_side, crop)


def decoding_rows(folder: Path, sides: Sides, pictures: int) -> list[Row]:
    """Decoded pixels, and resized and cropped ones, against torchvision's transforms: bit for bit."""
    from PIL import Image
    from torchvision import transforms

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise UserError(f"{folder} holds no .jpg, .jpeg or .png: name a folder of pictures")
    rows = []
    for i in range(min(pictures, len(paths))):
        path = paths[i * len(paths) // min(pictures, len(paths))]
        with Image.open(path) as file:
            image = file.convert("RGB")
        short = max(8, min(256, min(image.size) * 3 // 4))
        crop = short * 7 // 8
        row = Row("data", "decode", "decode", path.name, "uint8", order=0, kind="data")
        rows.append(compare_arrays(row, decoding.read_rgb(path), np.asarray(image), None))
        theirs = np.asarray(transforms.CenterCrop(crop)(transforms.Resize(short)(image)))
        row = Row("data", "resize", "resize", path.name, "uint8", order=1, kind="data")
        ours = sides.resize(path, short, crop)
        compare_arrays(row, ours, theirs, None)
        if not row.equal:
            data_causes.attach(row, data_causes.of_resize(np.asarray(image), short, crop, ours, theirs))
        rows.append(row)
    return rows


def input_rows(sides: Sides, seed: int, dtypes: tuple[str, ...] = INPUT_DTYPES) -> list[Row]:
    """The networks' input, in evaluation and with the same draws in training, for every normalisation."""
    rows = []
    rng = np.random.default_rng([seed, 5])
    images = rng.integers(0, 256, (6, STORED, STORED, 3), np.uint8)
    # Every brightness at least once: the division by 255 rounds differently for each.
    images[0].reshape(-1)[: 3 * 256] = np.repeat(np.arange(256, dtype=np.uint8), 3)
    measured = _statistics(rng)
    draws = torch_augment.Draws(
        rng.integers(0, STORED - SIZE + 1, 6), rng.integers(0, STORED - SIZE + 1, 6), rng.random(6) < 0.5,
        (0.1 * rng.standard_normal((6, 3))).astype(np.float32).astype(np.float64),
    )  # fmt: skip
    for dtype in dtypes:
        for normalize in NORMALIZATIONS:
            for drawn, stage in ((None, "evaluation"), (draws, "training")):
                noise = drawn is not None
                settings = TrainSettings(
                    image_size=SIZE, normalize=normalize, crop=noise, flip=noise, color_noise=noise
                )
                arrays = torch_augment.statistics_for(settings, measured)
                ours = sides.jax_input(images, drawn, settings, arrays, dtype)
                theirs, error = sides.torch_input(images, drawn, settings, arrays, dtype)
                row = Row("data", "input", "input", f"{normalize} {stage}", dtype, order=2, kind="data")
                compare_arrays(row, ours, theirs, _input_bound(theirs, error, dtype))
                if not row.equal:
                    crops = torch_augment.cut(images, drawn, SIZE)
                    data_causes.attach(row, data_causes.of_input(crops, normalize, arrays, ours, theirs))
                rows.append(row)
    return rows


def _input_bound(reference: NDArray, error: NDArray | None, dtype: str) -> Bound:
    """One unit in the last place of the result, or of what cancelled on the way to it.

    XLA multiplies by 1/255 where PyTorch divides by 255, which may differ by one unit in the last place of x / 255;
    the mean that is subtracted afterwards cancels, so that a small result carries the unit of a larger number. The
    running error bound of the reference says how much; sums of colour noise may be ordered otherwise as well.
    """
    spacing = np.abs(np.spacing(reference.astype(dtype))).astype(np.float64)
    return Bound(1, spacing if error is None else np.maximum(running_bound(1, error).allowed, spacing))


def _statistics(rng: np.random.Generator) -> Any:
    from alexnet_io.image_statistics import TrainingStatistics

    vectors = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    return TrainingStatistics(
        mean_image=rng.uniform(80, 140, (STORED, STORED, 3)).astype(np.float32),
        mean=rng.uniform(80, 140, 3), std=rng.uniform(40, 70, 3),
        eigenvalues=np.array([9000.0, 900.0, 90.0]), eigenvectors=vectors,
    )  # fmt: skip


def jax_input(images: NDArray, draws: Any, settings: TrainSettings, arrays: dict[str, NDArray], dtype: str) -> NDArray:
    """What the JAX network sees, compiled as in training; NHWC."""
    augmentation = jax_augment.Augmentation.of(settings)
    wide = dtype == "float64"
    whole = np.int64 if wide else np.int32  # as `jax_augment.draw` gives them
    drawn = None if draws is None else jax_augment.Draws(
        draws.top.astype(whole), draws.left.astype(whole), draws.flip, draws.noise.astype(np.float32)
    )  # type: ignore[arg-type]  # fmt: skip
    with jax.enable_x64(wide):
        made = jax.jit(lambda x, d, s: jax_augment.apply(x, d, augmentation, s))(images, drawn, arrays)
        return np.asarray(made)


def torch_input(
    images: NDArray, draws: Any, settings: TrainSettings, arrays: dict[str, NDArray], dtype: str
) -> tuple[NDArray, NDArray | None]:
    """What the PyTorch network sees, moved to NHWC, and the error that its roundings may add up to."""
    named = {**arrays, "zero": np.zeros((), np.float32)}
    statistics = {name: torch.from_numpy(np.asarray(a)).to(DTYPES[dtype]) for name, a in named.items()}
    mode = RunningError()
    with mode:
        made = torch_augment.network_input(images, draws, settings, statistics)
    error = mode.get(made).error
    moved = None if error is None else to_numpy(error).transpose(0, 2, 3, 1)
    return to_numpy(made).transpose(0, 2, 3, 1), moved


def rate_rows(sides: Sides) -> list[Row]:
    """Learning rates of every recipe at every step of 90 epochs; exactly the same number."""
    rows = []
    for recipe in RECIPES:
        model = "cifar_18pct" if recipe == "cifar" else "two_column"
        settings = jax_recipes.resolve(TrainSettings(model=model, recipe=recipe, data="synthetic"))
        reference = torch_recipes.recipe_for(recipe, model)
        # ImageNet's 1,281,167 images make this many steps; fewer will do where only epochs count.
        per_epoch = 1_281_167 // reference.batch_size if settings.schedule == "every_steps" else 20
        row = Row("data", "learning rate", "learning rate", recipe, "float64", order=3, kind="schedule")
        if settings.schedule == "plateau":
            ours, theirs = _plateaus(settings, reference)
        else:
            places = [(step // per_epoch, step) for step in range(EPOCHS * per_epoch)]
            ours = np.array([sides.jax_rate(settings, *place) for place in places])
            theirs = np.array([sides.torch_rate(reference, *place) for place in places])
        compare_arrays(row, ours, theirs, None)
        if not row.equal:
            data_causes.attach(row, data_causes.of_rates(ours, theirs, per_epoch))
        rows.append(row)
    return rows


def _torch_rate(recipe: Any, epoch: int, step: int) -> float:
    return torch_schedules.learning_rate(recipe.schedule, recipe.learning_rate, epoch=epoch, step=step)


def _plateaus(settings: TrainSettings, recipe: Any) -> tuple[NDArray, NDArray]:
    """Both counters on one history: progress, standstill, progress too small to count, and so on."""
    rng = np.random.default_rng(6)
    losses = 7 * 0.93 ** np.minimum(np.arange(EPOCHS), 30) * (1 + 1e-4 * rng.standard_normal(EPOCHS))
    counter = jax_schedules.plateau_for(settings)
    assert counter is not None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.learning_rate)
    scheduler = torch_schedules.plateau(recipe.schedule, optimizer)
    ours, theirs = [], []
    for epoch in range(EPOCHS):
        ours.append(jax_schedules.learning_rate(settings, epoch, epoch, counter))
        theirs.append(optimizer.param_groups[0]["lr"])
        counter.update(float(losses[epoch]))
        optimizer.step()
        scheduler.step(float(losses[epoch]))
    return np.array(ours), np.array(theirs)
