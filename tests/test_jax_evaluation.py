"""Evaluation in the main framework: every example once, whatever the batch, the devices and the processes."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from alexnet_io.data.sources.dataset import Split
from alexnet_io.run.crops import View
from alexnet_io.run.evaluation import Evaluation
from jax_alexnet import evaluation, steps
from jax_alexnet.devices import data_mesh
from jax_alexnet.evaluation import evaluate_split, own_rows
from jax_alexnet.run_setup import Weighted

pytestmark = pytest.mark.multi_device
NAMES = list("abcdefg")


def split_of(rng: np.random.Generator, count: int, side: int = 2) -> Split:
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    labels = rng.integers(0, len(NAMES), count, np.int32)
    return Split(
        "test", labels, [str(place) for place in range(count)], (side, side, 3), lambda places: images[places], "test"
    )


def scores(images: Any) -> np.ndarray:
    """Logits that say which image they are of."""
    return np.asarray(images).reshape(len(images), -1)[:, : len(NAMES)] / np.float32(50)


class Network(Weighted):
    """One without layers, on some devices; `sizes` are the batches that it was given."""

    def __init__(self, devices: int) -> None:
        self.sizes: list[int] = []
        super().__init__(NAMES, data_mesh(jax.devices()[:devices]), self.step, "weights", {"mean": jax.numpy.zeros(3)})

    def step(self, params: Any, batch: steps.DeviceBatch, statistics: dict[str, Any]) -> tuple[Any, None]:
        assert params == "weights"
        assert statistics is self.statistics
        self.sizes.append(batch.images.shape[0])
        assert batch.labels.shape == batch.weights.shape == batch.images.shape[:1]
        assert len(batch.images.sharding.device_set) == self.mesh.size  # type: ignore[union-attr]
        return jax.device_put(scores(batch.images), batch.images.sharding), None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("count", "devices", "batch_size", "size", "batches"),
    [
        (1, 1, 4, 4, 1),
        (8, 1, 4, 4, 2),
        (9, 1, 4, 4, 3),
        (9, 4, 5, 8, 2),
        (9, 4, 8, 8, 2),
        (5, 1, None, 5, 1),
        (5, 4, None, 8, 1),
        (130, 1, None, 128, 2),
        (130, 3, None, 129, 2),
    ],
)
def test_every_example_counts_once(rng, count, devices, batch_size, size, batches):
    split, network = split_of(rng, count), Network(devices)
    report = evaluate_split(network, split, batch_size)
    expected = Evaluation(NAMES)
    expected.add(scores(split.read(np.arange(count))), split.labels)
    assert report == expected.report()
    assert (report.confusion == expected.report().confusion).all()
    assert network.sizes == [size] * batches


def test_of_several_crops_the_probabilities_are_averaged(rng):
    """Against float64: of each view the softmax of its own logits, and of their mean the logarithm."""
    split, network, views = split_of(rng, 9, 3), Network(2), (View(0, 0), View(0, 1, flip=True), View(1, 0))
    seen: list[Any] = []
    report = evaluate_split(network, split, 4, views, 2, lambda *told: seen.append(told))
    assert network.sizes == [4] * 3 * len(views)
    images = split.read(np.arange(9))
    crops = [images[:, :2, :2], images[:, :2, 2:0:-1], images[:, 1:, :2]]
    exponentials = [np.exp(np.float64(scores(crop))) for crop in crops]
    expected, logits = Evaluation(NAMES), np.log(sum(e / e.sum(axis=1, keepdims=True) for e in exponentials) / 3)
    expected.add(logits, split.labels)
    np.testing.assert_allclose(np.concatenate([found for found, _, _ in seen])[:9], logits, rtol=1e-12)
    assert (report.confusion == expected.report().confusion).all()
    assert report.loss == pytest.approx(expected.report().loss, rel=1e-12)
    assert [batch.weights.sum() for _, batch, _ in seen] == [4, 4, 1] and all(of is split for _, _, of in seen)


def test_rows_of_a_divided_array_come_in_order():
    rows = np.arange(24).reshape(8, 3)
    divided = jax.device_put(
        rows, jax.sharding.NamedSharding(data_mesh(jax.devices()[:4]), jax.sharding.PartitionSpec("data"))
    )
    np.testing.assert_array_equal(own_rows(divided), rows)


def test_of_an_array_that_lies_elsewhere_too_own_rows_are_those_here_each_once():
    """Two devices with one part of the batch each, and copies of them; shards come in any order."""

    def shard(start: int | None, rows: list[int]) -> Any:
        return SimpleNamespace(index=(slice(start, None), slice(None)), data=np.array(rows))

    elsewhere: Any = SimpleNamespace(
        is_fully_addressable=False, addressable_shards=[shard(4, [4, 5]), shard(2, [2, 3]), shard(4, [4, 5])]
    )
    assert own_rows(elsewhere).tolist() == [2, 3, 4, 5]
    whole: Any = SimpleNamespace(is_fully_addressable=False, addressable_shards=[shard(None, [0, 1]), shard(2, [2])])
    assert own_rows(whole).tolist() == [0, 1, 2]
    single: Any = SimpleNamespace(is_fully_addressable=False, addressable_shards=[shard(1, [7]), shard(None, [3])])
    assert own_rows(single).tolist() == [3, 7]


def test_processes_that_evaluated_the_same_images_count_once(rng, monkeypatch):
    """Four processes; the second and the fourth have the columns of what the first and the third have."""
    logits, labels = rng.normal(size=(40, len(NAMES))), rng.integers(0, len(NAMES), 40)
    parts = []
    for rows in (slice(0, 25), slice(25, 40)):
        part = Evaluation(NAMES)
        part.add(logits[rows], labels[rows])
        parts += [part, part]
    gathered = [np.stack([part.to_arrays()[name] for part in parts]) for name in parts[0].to_arrays()]
    answers, asked = iter([np.array([0, 0, 1, 1]), *gathered]), []  # each one's share of the images, then its counts

    def gather(array: np.ndarray) -> np.ndarray:
        asked.append(array)
        return next(answers)

    def several(index: int, count: int) -> Any:
        assert (index, count) == (jax.process_index(), jax.process_count()) == (0, 1)
        return SimpleNamespace(count=4, gather=gather)

    monkeypatch.setattr(evaluation, "Processes", several)
    whole = Evaluation(NAMES)
    whole.add(logits, labels)
    assert evaluation._over_processes(parts[2], 1).report() == whole.report()
    assert asked[0] == 1  # what this one has
    assert [some.tolist() for some in asked[1:]] == [some.tolist() for some in parts[2].to_arrays().values()]


def test_a_process_alone_has_all_counts(rng):
    counts = Evaluation(NAMES)
    assert evaluation._over_processes(counts, 0) is counts
