"""`open_source`: from what `--data` says to a `DataSet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.data.cache import Progress
from alexnet_io.data.decoding import Resizing
from alexnet_io.data.memory import StepMemory, refuse_what_cannot_fit
from alexnet_io.data.sources.cifar import open_cifar
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.digits import open_digits
from alexnet_io.data.sources.folder import open_folder
from alexnet_io.data.sources.imagenet import open_imagenet
from alexnet_io.data.sources.prepared import Preparing, held_out, uncovered
from alexnet_io.data.sources.specs import Spec, parse_spec
from alexnet_io.data.sources.synthetic import open_synthetic
from alexnet_io.data.sources.tfds_prepared import open_tfds, tfds_dirs
from alexnet_io.errors import UserError
from alexnet_io.run.progress import now_and_then

FITS = ("crop", "stretch")


def open_source(
    spec: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    fit: str = "crop",
    short_side: int | None = None,
    data_dir: str | Path = "data",
    cache_dir: str | Path | None = None,
    holdout: float | None = None,
    download: bool = False,
    seed: int = 0,
    measuring: bool = False,
    max_bad: int = 10,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Opens a data source.

    Args:
        spec: `digits`, `folder:PATH`, `cifar10`, `cifar100`, `imagenet:PATH`, `tfds:NAME` or `synthetic`.
        image_size: side, or (height, width), of the images handed out. None: as they are for `digits` (8),
            CIFAR (32) and `synthetic` (32), and 256 for the others.
        fit: "crop" brings the shorter side to `short_side` and cuts out the centre; "stretch" ignores proportions.
        short_side: for "crop"; default the larger side of `image_size`.
        data_dir: where CIFAR and tfds data lie.
        cache_dir: where decoded images are kept; default `$XDG_CACHE_HOME/jax_alexnet`.
        holdout: share of each class kept for testing, for `folder` and `tfds` without test images.
        download: allows fetching CIFAR.
        seed: for `synthetic`.
        measuring: nothing is learnt from the data: a folder may hold test images alone.
        max_bad: unreadable files tolerated.
        threads: decoding threads; default one a core.
        progress: called with files done, files in all, and what is being done.

    Raises:
        UserError: anything that keeps the data from being used, with what to do about it.
    """
    wanted = parse_spec(spec)
    if holdout is not None and wanted.kind not in ("folder", "tfds"):
        raise UserError(f"--holdout is for folder:PATH and tfds:NAME; {wanted.kind} has a test split of its own")
    cache = None if cache_dir is None else Path(cache_dir)
    preparing = Preparing(_resizing(image_size, fit, short_side), cache, threads, max_bad, progress)
    try:
        data = _open(wanted, preparing, Path(data_dir).expanduser(), holdout, download, seed, measuring)
    except OSError as error:
        place = printable(error.filename) if error.filename else str(wanted)
        raise UserError(
            f"{place} can't be read: {error.strerror or error}. Check the path and who may read it"
        ) from error
    return replace(data, notes=(*data.notes, *uncovered(data, holdout)))


def open_for(
    settings: CompleteSettings,
    measuring: bool = False,
    step: StepMemory | None = None,
    say: Callable[[str], None] | None = None,
) -> DataSet:
    """The data set that a run's settings name, its images stored at the size from which crops are taken.

    Says what there is to say about the data, and now and then how far a long preparation has come.

    Args:
        settings: the run's.
        measuring: see `open_source`.
        step: what a training step holds, for a run whose batches are yet to be checked: against the memory before the
            data are opened, against the number of training images after.
        say: prints what there is to say about the data; of a run of several processes once for all. Default: `print`.

    Raises:
        UserError: as `open_source`, and batches that can't fit into memory.
    """
    say = say or _printed
    if step is not None:
        refuse_what_cannot_fit(settings.batch_size, settings.stored_size, step)
    data = open_source(
        settings.data,
        image_size=settings.stored_size,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
        holdout=settings.holdout,
        download=settings.download,
        seed=settings.seed,
        max_bad=settings.max_bad_images,
        measuring=measuring,
        progress=now_and_then(),
    )
    if settings.validation is not None and not measuring:
        data = with_validation(data, settings.validation, settings.seed)
    for note in data.notes:
        say(note)
    if step is not None and settings.batch_size > len(data.train):
        say(
            f"warning: --batch-size {settings.batch_size} is more than the {len(data.train)} training images: an epoch "
            f"is one step, whose batch is filled up with {settings.batch_size - len(data.train)} images that don't "
            "count. A smaller --batch-size gives more steps an epoch"
        )
    return data


def _printed(text: str) -> None:
    print(text, flush=True)


def with_validation(data: DataSet, share: float, seed: int) -> DataSet:
    """The data set with a share of its training images as its validation images.

    They are chosen in each class as `--holdout` chooses test images, but by the run's seed too.

    Raises:
        UserError: the share is no image, or a split that is no split.
    """
    train = data.train
    held, notes = held_out(train.names, train.labels, share, seed=seed, flag="--validation", split="validation")
    kept, validation = np.flatnonzero(~held), np.flatnonzero(held)
    return replace(
        data,
        train=train.subset(kept),
        validation=train.subset(validation, "validation"),
        notes=(*data.notes, *notes),
    )


def _open(
    wanted: Spec,
    preparing: Preparing,
    data_dir: Path,
    holdout: float | None,
    download: bool,
    seed: int,
    measuring: bool,
) -> DataSet:
    path = Path(wanted.argument).expanduser()
    if wanted.kind == "folder":
        return open_folder(path, preparing, holdout, measuring)
    if wanted.kind == "imagenet":
        return open_imagenet(path, preparing)
    if wanted.kind == "tfds":
        return open_tfds(wanted.argument, tfds_dirs(data_dir), preparing, holdout)
    if wanted.kind == "synthetic":
        return open_synthetic(wanted.argument, preparing.resizing, seed)
    if wanted.kind == "digits":
        return open_digits(preparing)
    return open_cifar(wanted.kind, data_dir, preparing, download)


def _resizing(image_size: int | tuple[int, int] | None, fit: str, short_side: int | None) -> Resizing | None:
    if fit not in FITS:
        raise UserError(f"images are fitted by {' or '.join(FITS)}, not {fit!r}")
    if image_size is None:
        if short_side is not None:
            raise UserError("a shorter side needs an image size: give both")
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if fit == "stretch":
        if short_side is not None:
            raise UserError("stretched images keep no proportions: leave out the shorter side, or fit by crop")
        return Resizing(height, width)
    return Resizing(height, width, short_side or max(height, width))
