"""Batches of uint8 images in an order that depends on the seed and the epoch alone.

Batch number k of an epoch is a pure function of (split, batch size, seed, epoch, k): reading ahead, the number of
threads and the library that drives them change nothing, and a run resumed at step k sees what it would have seen.
Threads read from the memory map; nothing is forked, which JAX's own threads would not survive.

Grain is imported only where its threads read ahead.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources.dataset import Split
from alexnet_io.errors import UserError

LOADERS = ("grain", "threads")
PADDING_ID = -1


class LoadingError(UserError):
    """Reading a batch failed or took too long; the message names the image."""


@dataclass(frozen=True)
class Batch:
    """One process's part of a global batch.

    Attributes:
        images: uint8 (n, height, width, 3).
        labels: int32 (n,).
        weights: float32 (n,): 1, or 0 for the repeated images that fill up an epoch's last batch.
        ids: int64 (n,): place in the split, `PADDING_ID` where the weight is 0.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    ids: np.ndarray


def steps_in_epoch(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches that cover `examples`; the short last one counts unless `drop_last`."""
    return examples // batch_size if drop_last else -(-examples // batch_size)


def epoch_order(examples: int, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order in which an epoch visits its examples: int64 (examples,), a permutation.

    Sorted by raw Philox numbers, which NumPy promises never to change; its `permutation` comes without promise.
    """
    if not shuffle:
        return np.arange(examples)
    keys = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(examples)
    return np.argsort(keys, kind="stable")


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = False,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    drop_last: bool = False,
    prefetch: int = 4,
    threads: int = 2,
    time_limit_s: float = 120.0,
    loader: str = "grain",
) -> Iterator[Batch]:
    """Yields one epoch's batches from number `start_step` on, read ahead.

    The short last batch is filled up with images of weight 0, so that every batch has the same shape and every
    example counts once. Of each global batch, process p gets rows p * n to (p + 1) * n with n = batch_size /
    process_count.

    Args:
        split: the images.
        batch_size: images in a batch, over all processes.
        seed: chooses the orders; at least 0.
        epoch: chooses this epoch's order; at least 0.
        shuffle: False gives the order of the split.
        start_step: batches to leave out, for resuming.
        process_index: which of `process_count` processes this is.
        process_count: processes that share each global batch.
        drop_last: leaves out a short last batch instead of filling it up.
        prefetch: batches read ahead.
        threads: batches read at the same time.
        time_limit_s: seconds after which a batch that has not been read is an error.
        loader: "grain", or "threads" for the same batches from a few threads of our own: importing grain
            imports JAX, which a PyTorch process may not want.

    Raises:
        UserError: arguments that can't be met.
        LoadingError: an image could not be read, or not within `time_limit_s`.
    """
    _check(split, batch_size, seed, epoch, start_step, process_index, process_count, loader, min(prefetch, threads))
    order = epoch_order(len(split), seed=seed, epoch=epoch, shuffle=shuffle)
    share = batch_size // process_count
    offset = process_index * share

    def start(step: int) -> _Reading:
        return _Reading(
            lambda step: _read_batch(split, order, step * batch_size + offset, share), step, split, time_limit_s
        )

    steps = range(min(start_step, last := steps_in_epoch(len(split), batch_size, drop_last)), last)
    grain = _import_grain() if loader == "grain" else None
    if grain is None:
        return _through_threads(start, steps, prefetch)
    return _through_grain(grain, start, steps, min(threads, prefetch), prefetch)


def _read_batch(split: Split, order: np.ndarray, first: int, count: int) -> Batch:
    places = np.arange(first, first + count)
    real = places < len(order)
    ids = order[places % len(order)]
    try:
        images = split.read(ids)
    except Exception as error:
        raise _name_failure(split, ids, error) from error
    if images.dtype != np.uint8 or images.shape != (count, *split.image_shape):
        raise LoadingError(
            f"{split.name} images should be uint8 {split.image_shape}, got {images.dtype} {images.shape}"
        )
    return Batch(images, split.labels[ids].astype(np.int32), real.astype(np.float32), np.where(real, ids, PADDING_ID))


def _name_failure(split: Split, ids: np.ndarray, error: Exception) -> LoadingError:
    for place in ids:
        try:
            split.read([place])
        except Exception as single:
            name = printable(split.names[int(place)])
            return LoadingError(f"{split.name} image {place} ({name}) can't be read: {single or type(single).__name__}")
    return LoadingError(f"{split.name} images {ids.tolist()} can't be read together: {error or type(error).__name__}")


class _Reading:
    """A batch being read in a thread that may be left behind: a read that hangs in the system can't be stopped."""

    def __init__(self, read: Callable[[int], Batch], step: int, split: Split, limit_s: float) -> None:
        self._read, self._step, self._split, self._limit_s = read, step, split, limit_s
        self._outcome: Batch | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="read batch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._read(self._step)
        except BaseException as error:
            self._outcome = error

    def result(self) -> Batch:
        self._thread.join(self._limit_s)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        if self._outcome is None:
            place = printable(self._split.store) if self._split.store else "memory"
            raise LoadingError(
                f"batch {self._step} of the {self._split.name} split was not read within {self._limit_s:g} s: "
                f"check the disk or network drive that holds it ({place})"
            )
        return self._outcome


def _through_grain(
    grain: Any, start: Callable[[int], _Reading], steps: range, threads: int, prefetch: int
) -> Iterator[Batch]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    numbers = grain.MapDataset.range(steps.start, steps.stop)
    with contextlib.closing(
        iter(numbers.map(lambda step: start(int(step)).result()).to_iter_dataset(options))
    ) as ready:
        yield from ready


def _through_threads(start: Callable[[int], _Reading], steps: range, threads: int) -> Iterator[Batch]:
    ahead: deque[_Reading] = deque()
    for step in steps:
        ahead.append(start(step))
        if len(ahead) >= threads:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _import_grain() -> Any:
    try:
        import grain
    except ImportError:
        _say_without_grain()
        return None
    return grain


@functools.cache  # once
def _say_without_grain() -> None:
    logging.getLogger("alexnet_io").warning(
        "grain is not installed: plain threads read the batches, which are the same ones"
    )


def _check(
    split: Split,
    batch_size: int,
    seed: int,
    epoch: int,
    start_step: int,
    process_index: int,
    process_count: int,
    loader: str,
    ahead: int,
) -> None:
    if ahead < 1:
        raise UserError(f"reading needs at least 1 thread and 1 batch ahead, not {ahead}")
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} can't be shared equally by {process_count} processes: choose a multiple, "
            f"for example {max(process_count, batch_size // max(process_count, 1) * process_count)}"
        )
    if not 0 <= process_index < process_count:
        raise UserError(f"process {process_index} does not exist: {process_count} are numbered from 0")
    if min(seed, epoch, start_step) < 0:
        raise UserError(f"seed, epoch and first step start at 0, not {min(seed, epoch, start_step)}")
    if loader not in LOADERS:
        raise UserError(f"batches are loaded by {' or '.join(LOADERS)}, not {loader!r}")
    if not len(split):
        raise UserError(f"the {split.name} split has no images")
