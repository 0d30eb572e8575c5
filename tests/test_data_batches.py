"""Batches: whose order, which rows, how often, and what happens when reading fails."""

import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alexnet_io.data.batches
from alexnet_io.data.batches import LOADERS, Batch, LoadingError, batches, epoch_order, steps_in_epoch
from alexnet_io.data.sources.dataset import Split
from alexnet_io.errors import UserError

FIELDS = ("images", "labels", "weights", "ids")


def numbered(count: int, fetch=None) -> Split:
    """A split whose image number i is filled with i and labelled i + 1."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 3))
    return Split(
        "train",
        np.arange(1, count + 1, dtype=np.int32),
        [f"image-{place}" for place in range(count)],
        (2, 3, 3),
        fetch or (lambda places: images[places]),
        "numbered",
    )


def ids(some: list[Batch]) -> list[int]:
    """The ids that count, in order."""
    return [int(place) for batch in some for place, weight in zip(batch.ids, batch.weights, strict=True) if weight]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(getattr(x, field), getattr(y, field)) for x, y in zip(a, b, strict=True) for field in FIELDS
    )


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 200])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_example_counts_once_and_shapes_never_change(loader, count, shuffle):
    got = list(batches(numbered(count), batch_size=8, seed=3, epoch=1, shuffle=shuffle, loader=loader))
    assert len(got) == steps_in_epoch(count, 8) == -(-count // 8)
    assert sorted(ids(got)) == list(range(count))
    for batch in got:
        assert batch.images.shape == (8, 2, 3, 3) and batch.images.dtype == np.uint8
        assert (batch.labels.dtype, batch.weights.dtype, batch.ids.dtype) == (np.int32, np.float32, np.int64)
        real = batch.weights == 1
        assert (batch.ids[real] == batch.images[real, 0, 0, 0]).all()
        assert (batch.ids[real] + 1 == batch.labels[real]).all()
        # What fills up the last batch repeats true images with true labels, and counts nothing.
        assert (batch.weights[~real] == 0).all() and (batch.ids[~real] == -1).all()
        assert (batch.images[~real, 0, 0, 0] + 1 == batch.labels[~real]).all()
    if not shuffle:
        assert ids(got) == list(range(count))


@pytest.mark.parametrize("loader", LOADERS)
def test_short_last_batches_can_be_left_out(loader):
    got = list(batches(numbered(21), batch_size=8, shuffle=True, drop_last=True, loader=loader))
    assert len(got) == steps_in_epoch(21, 8, drop_last=True) == 2
    assert all(batch.weights.all() for batch in got)


def test_the_loader_and_its_threads_change_nothing():
    def run(**options):
        return list(batches(numbered(100), batch_size=7, seed=5, epoch=2, shuffle=True, **options))

    expected = run(loader="threads", threads=1, prefetch=1)
    for loader in LOADERS:
        for threads, prefetch in ((1, 4), (4, 1), (3, 8)):
            assert same(run(loader=loader, threads=threads, prefetch=prefetch), expected)


def test_orders_differ_by_seed_and_epoch_and_repeat():
    orders = {
        (seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch, shuffle=True).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9  # (1, 2) and (2, 1) differ too
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert orders[1, 2] == tuple(epoch_order(50, seed=1, epoch=2, shuffle=True).tolist())


def test_orders_are_fair():
    """Over many epochs every example comes first about equally often: chi-squared, 9 degrees of freedom."""
    firsts = [epoch_order(10, seed=0, epoch=epoch, shuffle=True)[0] for epoch in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # passed by chance 999 times in 1000


def test_order_is_what_numpy_promises_to_keep():
    """Argsort of Philox4x64-10's raw output, keyed by SeedSequence: both fixed by NumPy's compatibility rules."""
    raw = np.random.Philox(np.random.SeedSequence([9, 4])).random_raw(30)
    assert epoch_order(30, seed=9, epoch=4, shuffle=True).tolist() == sorted(range(30), key=lambda place: raw[place])


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 12), start=st.integers(0, 50), seed=st.integers(0, 2**40))
def test_resuming_at_any_step_gives_the_rest(count, batch_size, start, seed):
    def run(start_step: int) -> list[Batch]:
        return list(
            batches(
                numbered(count), batch_size=batch_size, seed=seed, shuffle=True, start_step=start_step, loader="threads"
            )
        )

    assert same(run(start), run(0)[start:])


def test_resuming_through_grain_gives_the_rest():
    def run(start_step: int) -> list[Batch]:
        return list(batches(numbered(50), batch_size=8, shuffle=True, start_step=start_step))

    for start in (0, 3, 6, 7, 99):
        assert same(run(start), run(0)[start:])


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("loader", LOADERS)
def test_processes_share_each_batch_without_overlap(processes, loader):
    options = {"batch_size": 8, "seed": 1, "shuffle": True, "loader": loader}
    whole = list(batches(numbered(37), **options))
    parts = [
        list(
            batches(
                numbered(37),
                batch_size=8,
                seed=1,
                shuffle=True,
                loader=loader,
                process_index=index,
                process_count=processes,
            )
        )
        for index in range(processes)
    ]
    joined = [
        Batch(*(np.concatenate([getattr(part, field) for part in step]) for field in FIELDS))
        for step in zip(*parts, strict=True)
    ]
    assert same(joined, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6, "process_count": 4}, "6 can't be shared equally by 4 processes.*for example 4"),
        ({"batch_size": 2, "process_count": 4}, "for example 4$"),
        ({"batch_size": 13, "process_count": 4}, "for example 12$"),
        ({"batch_size": 0}, "a batch of 0"),
        ({"batch_size": 4, "process_count": 2, "process_index": 2}, "process 2 does not exist"),
        ({"batch_size": 4, "seed": -1}, "start at 0, not -1"),
        ({"batch_size": 4, "epoch": -2}, "start at 0, not -2"),
        ({"batch_size": 4, "loader": "queue"}, "grain or threads, not 'queue'"),
        ({"batch_size": 4, "threads": 0}, "at least 1 thread"),
        ({"batch_size": 4, "prefetch": 0}, "at least 1 thread"),
    ],
)
def test_impossible_requests_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        batches(numbered(9), **options)


def test_an_empty_split_is_refused():
    with pytest.raises(UserError, match="train split has no images"):
        batches(numbered(0), batch_size=4)


# Reading that fails


@pytest.mark.parametrize("loader", LOADERS)
def test_a_failing_read_names_the_image_and_ends_the_run(loader):
    def fetch(places: np.ndarray) -> np.ndarray:
        if 13 in places:
            raise OSError(5, "Input/output error")
        return np.zeros((len(places), 2, 3, 3), np.uint8)

    got = []
    with pytest.raises(
        LoadingError, match=r"train image 13 \(image-13\) can't be read: \[Errno 5\] Input/output error"
    ):
        got.extend(batches(numbered(40, fetch), batch_size=4, loader=loader))
    assert len(got) <= 3


@pytest.mark.parametrize("loader", LOADERS)
def test_images_of_a_wrong_shape_are_an_error(loader):
    split = numbered(9, lambda places: np.zeros((len(places), 5, 5, 3), np.uint8))
    with pytest.raises(LoadingError, match=r"should be uint8 \(2, 3, 3\), got uint8 \(4, 5, 5, 3\)"):
        list(batches(split, batch_size=4, loader=loader))


@pytest.mark.parametrize("loader", LOADERS)
def test_a_read_that_hangs_is_an_error_in_time(loader):
    release = threading.Event()

    def fetch(places: np.ndarray) -> np.ndarray:
        if 9 in places:
            release.wait(30)
        return np.zeros((len(places), 2, 3, 3), np.uint8)

    start = time.monotonic()
    with pytest.raises(LoadingError, match=r"batch 2 of the train split was not read within 0\.3 s"):
        list(batches(numbered(40, fetch), batch_size=4, loader=loader, time_limit_s=0.3))
    assert time.monotonic() - start < 10
    release.set()


@pytest.mark.parametrize("loader", LOADERS)
def test_a_process_whose_read_hangs_ends(loader):
    code = (
        "import time, sys; sys.path[:0] = ['tests', '.']\n"
        "from test_data_batches import numbered; from alexnet_io.data.batches import batches\n"
        "split = numbered(9, lambda places: time.sleep(1000))\n"
        f"list(batches(split, batch_size=4, loader={loader!r}, time_limit_s=0.2))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "was not read within 0.2 s" in done.stderr


@pytest.mark.parametrize("loader", LOADERS)
def test_leaving_early_leaves_no_thread_behind(loader):
    before = set(threading.enumerate())
    for batch in batches(numbered(200), batch_size=4, loader=loader):
        assert batch.images.shape == (4, 2, 3, 3)
        break
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_reading_ahead_is_bounded():
    """A slow consumer must not pile up the whole epoch in memory."""
    read = []

    def fetch(places: np.ndarray) -> np.ndarray:
        read.append(int(places[0]))
        return np.zeros((len(places), 2, 3, 3), np.uint8)

    for loader in LOADERS:
        read.clear()
        reading = batches(numbered(200, fetch), batch_size=2, loader=loader, prefetch=3)
        next(reading)
        time.sleep(0.2)
        assert len(read) <= 5
        reading.close()  # type: ignore[attr-defined]


def test_without_grain_the_batches_are_the_same_and_it_is_said_once(monkeypatch, caplog):
    expected = list(batches(numbered(30), batch_size=4, seed=1, shuffle=True))
    monkeypatch.setitem(sys.modules, "grain", None)  # importing it now fails
    alexnet_io.data.batches._say_without_grain.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert same(list(batches(numbered(30), batch_size=4, seed=1, shuffle=True)), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "grain is not installed: plain threads read the batches, which are the same ones"
    ]
