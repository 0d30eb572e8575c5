"""Planted bugs in preprocessing and schedules."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.decoding import read_rgb, resized_size
from jax_alexnet import augment as jax_augment
from jax_alexnet import schedules as jax_schedules
from jax_alexnet.schedules import Plateau
from parity.alexnet import data_comparison as data
from parity.alexnet import inputs, rates
from parity.mutants.planting import patched
from parity.reports.report import Report
from torch_ref import augment as torch_augment
from torch_ref import schedules as torch_schedules

Function = Callable[..., Any]
Change = Callable[[Function], Function]  # what is right into what is wrong
# Id, number, title, side, rows where it may be seen first, causes, and what runs it.
Entry = tuple[str, int, str, str, tuple[str, ...], tuple[str, ...], Callable[[], Report]]


def data_mutants() -> Iterator[Entry]:
    """Id, number, title, side, rows where it may be seen first, causes, and what runs it."""
    owners: tuple[tuple[str, ModuleType], ...] = (("jax", jax_augment), ("torch", torch_augment))
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
    yield from _rate_mutants()
    yield from _crop_mutants()


def entry(name: str, title: str, seen: str, causes: str | tuple[str, ...], run: Callable[[], Report]) -> Entry:
    """An entry whose number and side are the first and the last word of its id."""
    number, *_, side = name.split("-")
    return name, int(number), title, side, (seen,), (causes,) if isinstance(causes, str) else causes, run


def _rate_mutants() -> Iterator[Entry]:
    """Drops at the wrong epoch, far behind the usual length of a run; counters of plateaus."""

    def planted(
        name: str, title: str, cause: str, owner: ModuleType, what: str, change: Callable[[Function], Function]
    ) -> Entry:
        def run() -> Report:
            with patched(owner, what, change(getattr(owner, what))):
                return Report(rates.rows())

        return entry(name, title, "learning rate", cause, run)

    title = "a drop comes an epoch after its milestone"
    yield planted("47-milestone-jax", title, "rate_late", jax_schedules, "learning_rate", _jax_behind)
    yield planted("47-milestone-torch", title, "rate_late", torch_schedules, "learning_rate", _torch_behind)
    title = "a plateau waits one epoch less"
    yield planted("48-plateau-patience-jax", title, "rate_patience", jax_schedules, "plateau_for", _jax_hasty)
    yield planted("48-plateau-patience-torch", title, "rate_patience", torch_schedules, "plateau", _torch_hasty)
    title = "a plateau makes drops below 1e-8"
    yield planted("49-plateau-eps-jax", title, "rate_eps", jax_schedules, "plateau_for", _jax_without_eps)
    yield planted("49-plateau-eps-torch", title, "rate_eps", torch_schedules, "plateau", _torch_without_eps)


def _jax_behind(right: Function) -> Function:
    def learning_rate(
        settings: CompleteSettings, epoch: int, step: int, plateau: jax_schedules.Plateau | None = None
    ) -> float:
        if settings.schedule != "at_epochs":
            return right(settings, epoch, step, plateau)
        return settings.learning_rate * settings.drop_factor ** sum(epoch > drop for drop in settings.milestones)

    return learning_rate


def _torch_behind(right: Function) -> Function:
    def learning_rate(schedule: torch_schedules.Schedule, base: float, *, epoch: int, step: int) -> float:
        if not isinstance(schedule, torch_schedules.Milestones):
            return right(schedule, base, epoch=epoch, step=step)
        return base * schedule.factor ** sum(epoch > drop for drop in schedule.epochs)

    return learning_rate


def _jax_hasty(right: Function) -> Function:
    def plateau_for(settings: CompleteSettings) -> Plateau | None:
        counter = right(settings)
        if counter is not None:
            counter.patience -= 1
        return counter

    return plateau_for


def _torch_hasty(right: Function) -> Function:
    return lambda schedule, optimizer: right(replace(schedule, patience=schedule.patience - 1), optimizer)


def _jax_without_eps(right: Function) -> Function:
    class Eager(Plateau):
        """A counter that makes the smallest drops too: to it they aren't small."""

        def update(self, metric: float) -> float:
            """Count as always, at a rate scaled up, exactly, by a power of two."""
            self.learning_rate *= 2.0**900
            super().update(metric)
            self.learning_rate /= 2.0**900
            return self.learning_rate

    def plateau_for(settings: CompleteSettings) -> Plateau | None:
        counter = right(settings)
        if counter is not None:
            counter.__class__ = Eager
        return counter

    return plateau_for


def _torch_without_eps(right: Function) -> Function:
    def plateau(schedule: torch_schedules.Plateau, optimizer: Optimizer) -> ReduceLROnPlateau:
        scheduler = right(schedule, optimizer)
        scheduler.eps = 0.0
        return scheduler

    return plateau


def _crop_mutants() -> Iterator[Entry]:
    """Crops a pixel off, where only odd margins or the last position show it."""

    def planted(
        name: str,
        title: str,
        causes: str | tuple[str, ...],
        owner: ModuleType,
        what: str,
        change: Callable[[Function], Function],
    ) -> Entry:
        def run() -> Report:
            with patched(owner, what, change(getattr(owner, what))):
                return _inputs_only()

        return entry(name, title, "input", causes, run)

    title, causes = "central crops are rounded down", ("crop_position", "mean_image_position")
    yield planted("50-crop-floor-jax", title, causes, jax_augment, "central", _floored)
    yield planted("50-crop-floor-torch", title, causes, torch_augment, "central", _floored)
    title = "the last row of crops is never reached"
    yield planted("51-crop-last-jax", title, "crop_last", jax_augment, "apply", _jax_short)
    yield planted("51-crop-last-torch", title, "crop_last", torch_augment, "cut", _torch_short)


def _floored(right: Function) -> Function:
    return lambda stored, size: tuple((n - size) // 2 for n in stored[:2])


def _jax_short(right: Function) -> Function:
    def apply(
        images: NDArray, draws: jax_augment.Draws | None, augmentation: jax_augment.Augmentation, statistics: Any
    ) -> jax.Array:
        if draws is not None and augmentation.crop:
            last = max(images.shape[1] - augmentation.image_size - 1, 0)
            draws = draws._replace(top=jax.numpy.minimum(draws.top, last))
        return right(images, draws, augmentation, statistics)

    return apply


def _torch_short(right: Function) -> Function:
    def cut(images: NDArray, draws: torch_augment.Draws | None, size: int) -> NDArray:
        if draws is not None:
            draws = draws._replace(top=np.minimum(draws.top, max(images.shape[1] - size - 1, 0)))
        return right(images, draws, size)

    return cut


def _inputs_only() -> Report:
    return Report(inputs.rows(0))


def _bgr(owner: ModuleType) -> Callable[[], Report]:
    def run() -> Report:
        mean, std = owner.IMAGENET_MEAN, owner.IMAGENET_STD
        with patched(owner, "IMAGENET_MEAN", mean[::-1]), patched(owner, "IMAGENET_STD", std[::-1]):
            return _inputs_only()

    return run


def _undivided(owner: ModuleType) -> Callable[[], Report]:
    right = owner.normalized

    def without(pixels: Any, normalize: str, statistics: Any) -> Any:
        # Pixels that come 255 times too bright: as if nobody had divided.
        return right(pixels * 255 if normalize in ("half", "unit", "imagenet") else pixels, normalize, statistics)

    def run() -> Report:
        with patched(owner, "normalized", without):
            return _inputs_only()

    return run


def _no_antialias() -> Report:
    def resize(path: Path, short_side: int, crop: int) -> NDArray:
        image = read_rgb(path)
        size = resized_size(image.shape[0], image.shape[1], short_side)
        made = jax.image.resize(image.astype(np.float32), (*size, 3), "bilinear", antialias=False)
        top, left = (round((n - crop) / 2) for n in size)
        cropped = np.asarray(made)[top : top + crop, left : left + crop]
        return np.clip(np.rint(cropped), 0, 255).astype(np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        _picture(Path(folder) / "one.png")
        return Report(data.decoding_rows(Path(folder), resize, 1))


def _picture(path: Path) -> None:
    """Stripes, a gradient and noise: detail that shrinking must average."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:96, :128]
    shades = (columns % 3 * 80 + rows) % 256
    pixels = np.stack([shades, columns * 2 % 256, rng.integers(0, 256, shades.shape)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def _late(side: str) -> Callable[[], Report]:
    right = {"jax": rates.jax_rates, "torch": rates.torch_rates}[side]

    def late(settings: CompleteSettings, where: Sequence[rates.Place]) -> NDArray:
        before = [max(place.step - 1, 0) for place in where]
        return right(settings, [rates.Place(step // rates.steps_per_epoch(settings), step) for step in before])

    return lambda: Report(rates.rows(**{side: late}))
