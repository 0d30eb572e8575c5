"""One training step over one, two and eight devices is the same step; what it counts, and evaluation's step."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import QUICKLY

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment, steps
from jax_alexnet import layer_specs as specs
from jax_alexnet.devices import data_mesh
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import choose_layout
from jax_alexnet.recipes import resolve

SIDE, STORED, CLASSES, BATCH, REAL = 10, 13, 7, 16, 13
# Every kind of layer that has a place in a batch, or weights; `test_parallel.py` has the real networks.
TABLE = specs.Variant(
    "small",
    "convolution, response norm, pooling, local convolution, dropout, units",
    SIDE,
    CLASSES,
    "paper",
    (
        specs.Conv("conv1", 4, 3, padding=1),
        specs.Relu("relu1"),
        specs.LRN("lrn1", 3, 1e-2, 0.75, 1.0, True),
        specs.Pool("pool1", "max", ceil=True),
        specs.LocalConv("local2", 4, 3, 1, 0.1),
        specs.Relu("relu2"),
        specs.Dropout("drop2", 0.3),
        specs.Dense("fc3", None),
    ),
)


class _Measured:
    """Statistics of an imagined training set."""

    mean = np.array([125.3, 123.0, 113.9])
    std = np.array([63.0, 62.1, 66.7])
    eigenvalues = np.array([0.2, 0.02, 0.004]) * 255**2
    eigenvectors = np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimization what runs for a moment."""
    monkeypatch.setattr(steps, "compiler_options", lambda platform: QUICKLY)


def model_of(dtype: Any = jnp.float64) -> AlexNet:
    return AlexNet(TABLE, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(jnp.float64))


def weights() -> Any:
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model_of().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
    return jax.tree.map(lambda leaf: 0.2 * rng.normal(size=leaf.shape), shapes)


def settings_of(**more: Any) -> CompleteSettings:
    return resolve(
        TrainSettings(
            model="cifar_11pct",
            recipe="paper",
            image_size=SIDE,
            stored_size=STORED,
            batch_size=BATCH,
            precision="float64",
            normalize="channel",
            schedule="constant",
            **more,
        )
    )


_measure = jax.jit(steps.measure, compiler_options=QUICKLY)
STILL = {"crop": False, "flip": False, "color_noise": False}


@pytest.fixture
def batch(rng: np.random.Generator) -> steps.DeviceBatch:
    """Of which the last rows only fill it up."""
    images = rng.integers(0, 256, (BATCH, STORED, STORED, 3), dtype=np.uint8)
    return steps.DeviceBatch(
        images, rng.integers(0, CLASSES, BATCH).astype(np.int32), (np.arange(BATCH) < REAL).astype("f4")
    )


@functools.cache
def compiled(still: bool, devices: int) -> tuple[Any, Any, Any, Any]:
    """Mesh, optimizer, statistics and training step on `devices` devices."""
    assert len(jax.devices()) >= 8
    settings, mesh = settings_of(**(STILL if still else {})), data_mesh(jax.devices()[:devices])
    optimizer, augmentation = make_optimizer(settings, TABLE, weights()), augment.Augmentation.of(settings)
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    return mesh, optimizer, statistics, steps.make_train_step(model_of(), optimizer, augmentation, mesh)


def run(batch: steps.DeviceBatch, devices: int, *, still: bool = False, count: int = 3) -> tuple[Any, Any]:
    """(state, metrics of the last step) after `count` steps."""
    (mesh, optimizer, statistics, step), params, metrics = compiled(still, devices), weights(), None
    state = steps.replicate(steps.TrainState(jnp.int32(0), params, optimizer.init(params)), mesh)
    for _ in range(count):
        state, metrics = step(state, steps.split(batch, mesh), jnp.float64(0.01), jax.random.key(3), statistics)
    return jax.tree.map(np.asarray, state), jax.tree.map(float, metrics)


def largest_difference(a: Any, b: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


@pytest.mark.multi_device
def test_devices_do_not_change_the_parameters(batch):
    """Crops, flips, colour noise, dropout and a short last batch included."""
    alone, metrics = run(batch, 1)
    assert alone.params["conv1"]["kernel"].dtype == np.float64
    assert alone.step == 3
    assert metrics.examples == REAL
    assert largest_difference(alone.params, weights()) > 1e-4
    for devices in (2, 8):
        together, same = run(batch, devices)
        assert largest_difference(alone, together) < 1e-12
        assert np.allclose(same, metrics, rtol=1e-12)


def test_a_step_takes_its_state_and_leaves_all_else(batch):
    """Its buffers become the next state's, which spares memory for one; what comes with it is used again."""
    (mesh, optimizer, statistics, step), params = compiled(False, 1), weights()
    state = steps.replicate(steps.TrainState(jnp.int32(0), params, optimizer.init(params)), mesh)
    others = (steps.split(batch, mesh), jnp.float64(0.01), jax.random.key(3), statistics)
    after, _ = step(state, *others)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((others, after)))


@pytest.mark.multi_device
def test_padding_rows_change_nothing(batch):
    other = batch._replace(images=np.where(batch.weights[:, None, None, None] > 0, batch.images, 255 - batch.images))
    first, second = (run(one, 2, still=True)[0] for one in (batch, other))
    assert largest_difference(first, second) == 0


@pytest.mark.multi_device
def test_the_gradient_is_that_of_the_mean_over_real_examples(batch):
    """One plain SGD step over 4 devices against the gradient of the loss, written down without any of it."""
    settings = settings_of(**STILL, optimizer="sgd", momentum=0.0, weight_decay=0.0, bias_learning_rate_factor=1.0)
    table = replace(TABLE, layers=tuple(row for row in TABLE.layers if row.name != "drop2"))
    model, before = AlexNet(table, dtype=jnp.dtype(jnp.float64), param_dtype=jnp.dtype(jnp.float64)), weights()
    images = (batch.images[:REAL, 2:12, 2:12] - _Measured.mean) / _Measured.std.astype(np.float32)

    def loss(params: Any) -> tuple[Any, Any]:
        logits: Any = model.apply({"params": params}, jnp.asarray(images))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels[:REAL])
        return losses.mean(), (losses.sum(), jnp.argmax(logits, axis=1))

    gradient, (total, guesses) = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICKLY)(before)
    mesh, optimizer = data_mesh(jax.devices()[:4]), make_optimizer(settings, table, before)
    augmentation = augment.Augmentation.of(settings)
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    step = steps.make_train_step(model, optimizer, augmentation, mesh)
    state = steps.replicate(steps.TrainState(jnp.int32(0), before, optimizer.init(before)), mesh)
    after, metrics = step(state, steps.split(batch, mesh), jnp.float64(0.03), jax.random.key(0), statistics)
    metrics = jax.tree.map(float, metrics)
    expected = jax.tree.map(lambda w, g: w - 0.03 * g, before, gradient)
    # The statistics are kept in float32; nothing else is.
    assert largest_difference(expected, jax.device_get(after.params)) < 1e-8
    assert largest_difference(before, jax.device_get(after.params)) > 1e-4
    assert metrics.loss == pytest.approx(float(total), rel=1e-7)
    assert metrics.top1 == (np.asarray(guesses) == batch.labels[:REAL]).sum()
    assert metrics.examples == REAL


# What a step counts


def counted(logits: Any, labels: Any, weights: Any = None) -> steps.Metrics:
    """As Python's numbers, since JAX is told to promote nothing."""
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    found = _measure(
        jnp.asarray(logits), steps.DeviceBatch(np.zeros(len(labels)), np.asarray(labels, np.int32), weights)
    )
    return jax.tree.map(float, found)


@pytest.mark.parametrize("rank", range(7))
def test_hits_by_how_many_classes_are_likelier(rank):
    """The first is right, the fifth is among five, the sixth isn't."""
    logits = np.array([[3.0, 9.0, -1.0, 4.0, 7.0, 0.0, 5.0]])
    found = counted(logits, np.argsort(-logits[0])[rank : rank + 1])
    assert (found.top1, found.top5, found.examples) == (rank < 1, rank < 5, 1)


def test_among_equal_logits_the_lower_class_comes_first():
    """As argmax has it: a network that says nothing isn't right about everything."""
    for label in range(7):
        found = counted(np.zeros((1, 7)), [label])
        assert (found.top1, found.top5) == (label < 1, label < 5)
    logits = np.array([[1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    for label, rank in ((0, 0), (2, 1), (5, 4), (6, 5), (1, 6)):
        found = counted(logits, [label])
        assert (found.top1, found.top5) == (rank < 1, rank < 5)


def test_rows_of_weight_zero_are_not_counted(rng):
    logits, labels = rng.normal(size=(9, 7)), rng.integers(0, 7, 9)
    real = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0], np.float32)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    losses = np.log(np.exp(logits).sum(1)) - own[:, 0]
    ranks = (logits > own).sum(1)
    found = counted(logits, labels, real)
    assert found.loss == pytest.approx((losses * real).sum(), rel=1e-12)
    assert (found.top1, found.top5) == ((real * (ranks < 1)).sum(), (real * (ranks < 5)).sum())
    assert found.examples == 5


def test_losses_are_computed_in_float32_at_least():
    assert counted(jnp.ones((1, 3), jnp.bfloat16), [2]).loss == pytest.approx(np.log(3), rel=1e-6)  # or 1.1016
    assert counted(np.ones((1, 3)), [2]).loss == pytest.approx(np.log(3), rel=1e-14)


# Evaluation


@pytest.mark.multi_device
def test_evaluation_sees_the_central_crop_without_dropout_or_noise(batch):
    settings, params = settings_of(), weights()
    mesh, augmentation = data_mesh(jax.devices()[:4]), augment.Augmentation.of(settings)
    statistics = augment.statistics_for(augmentation, _Measured)
    step = steps.make_eval_step(model_of(), augmentation, mesh)
    logits, losses = step(steps.replicate(params, mesh), steps.split(batch, mesh), steps.replicate(statistics, mesh))
    images = (batch.images[:, 2:12, 2:12] - statistics["mean"].astype("f8")) / statistics["std"].astype("f8")
    expected = np.asarray(jax.jit(model_of().apply, compiler_options=QUICKLY)({"params": params}, images))
    np.testing.assert_allclose(logits, expected, rtol=1e-11)
    own = expected[np.arange(BATCH), batch.labels]
    np.testing.assert_allclose(losses, np.log(np.exp(expected).sum(1)) - own, rtol=1e-10)
    # What a layer puts out is that of the same crop, without dropout either: the last one's are the logits.
    features = steps.make_feature_step(model_of(), augmentation, data_mesh(jax.devices()[:1]), "fc3")
    np.testing.assert_allclose(features(params, batch, statistics), expected, rtol=1e-11)


def test_weights_cast_once_give_the_same_logits(batch):
    """And a bias, which training keeps in float32, is no exception."""
    model, params = model_of(jnp.bfloat16), jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights())
    mesh, augmentation = data_mesh(jax.devices()[:1]), augment.Augmentation.of(settings_of())
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    step = steps.make_eval_step(model, augmentation, mesh)
    cast = steps.in_compute_dtype(params, model)
    assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    trees, batch = (steps.replicate(tree, mesh) for tree in (params, cast)), steps.split(batch, mesh)
    logits, once = (step(tree, batch, statistics)[0] for tree in trees)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, once)


@pytest.mark.multi_device
def test_weights_laid_out_for_inference_give_the_same_logits(batch, monkeypatch):
    """Those of fully connected layers are turned over, and nothing else is; on other processors none are."""
    model, params = model_of(), weights()
    mesh, augmentation = data_mesh(jax.devices()[:2]), augment.Augmentation.of(settings_of())
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    laid_out, turned = steps.for_inference(model, steps.replicate(params, mesh))
    for name, layer in params.items():
        kernel = layer["kernel"]
        np.testing.assert_array_equal(turned[name]["kernel"], kernel.T if kernel.ndim == 2 else kernel)
    batch = steps.split(batch, mesh)
    logits, once = (
        steps.make_eval_step(each, augmentation, mesh)(tree, batch, statistics)[0]
        for each, tree in ((model, steps.replicate(params, mesh)), (laid_out, turned))
    )
    np.testing.assert_allclose(once, logits, rtol=1e-11)
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        same, kept = steps.for_inference(model, params)
        assert same is model
        jax.tree.map(np.testing.assert_array_equal, kept, params)


# Where arrays lie


@pytest.mark.multi_device
def test_batches_are_divided_and_trees_replicated(batch):
    mesh = data_mesh(jax.devices()[:4])
    divided = steps.split(batch, mesh)
    field: Any
    for field, whole in zip(divided, batch, strict=True):
        np.testing.assert_array_equal(field, whole)
        shards = sorted(field.addressable_shards, key=lambda shard: shard.device.id)
        for place, shard in enumerate(shards):
            np.testing.assert_array_equal(shard.data, whole[4 * place : 4 * place + 4])
    (everywhere,) = steps.replicate([np.arange(3)], mesh)
    assert [shard.data.tolist() for shard in everywhere.addressable_shards] == [[0, 1, 2]] * 4


def test_the_shapes_of_a_state_are_known_without_making_it():
    settings, params = settings_of(), weights()
    optimizer = make_optimizer(settings, TABLE, params)
    shapes = steps.state_shapes(model_of(), optimizer, SIDE)
    state = steps.TrainState(jnp.int32(0), params, optimizer.init(params))
    assert jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, str(leaf.dtype)), state
    )
    layout = choose_layout("data", TABLE, jax.devices()[:2])
    assert steps.make_train_step(model_of(), optimizer, augment.Augmentation.of(settings), layout) is not None
