"""One training step over 1, 2, 4 and 8 devices is the same step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_io.train_settings import TrainSettings
from jax_alexnet import augment, steps
from jax_alexnet.devices import data_mesh
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.recipes import choose_variant, resolve

pytestmark = pytest.mark.multi_device


class _Measured:
    """Statistics of an imagined training set."""

    mean = np.array([125.3, 123.0, 113.9])
    std = np.array([63.0, 62.1, 66.7])
    eigenvalues = np.array([0.2, 0.02, 0.004]) * 255**2
    eigenvectors = np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]


def _settings(**more):
    return resolve(
        TrainSettings(
            model="cifar_11pct", recipe="paper", stored_size=28, batch_size=16, precision="float64",
            normalize="channel", schedule="constant", **more,
        )
    )  # fmt: skip


def _batch(rng, real=13):
    images = rng.integers(0, 256, (16, 28, 28, 3), dtype=np.uint8)
    weights = (np.arange(16) < real).astype(np.float32)
    return steps.Batch(images, rng.integers(0, 10, 16).astype(np.int32), weights)


def _run(settings, batch, devices, count=5, key=3):
    """Parameters and metrics after `count` steps on `devices` devices."""
    assert len(jax.devices()) >= 8
    mesh = data_mesh(jax.devices()[:devices])
    variant = choose_variant(settings)
    model = AlexNet(variant, 10, "pytorch", 0.5, jnp.float64, jnp.float64)
    params = model.init(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]
    optimizer = make_optimizer(settings, variant, params)
    augmentation = augment.Augmentation.of(settings)
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    step = steps.make_train_step(model, optimizer, augmentation, mesh)
    state = steps.replicate(steps.TrainState(jnp.int32(0), params, optimizer.init(params)), mesh)
    for _ in range(count):
        state, metrics = step(state, steps.split(batch, mesh), jnp.float64(0.01), jax.random.key(key), statistics)
    return jax.tree.map(np.asarray, state.params), jax.tree.map(float, metrics)


def _largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def test_devices_do_not_change_the_parameters(rng):
    """Crops, flips, colour noise and a short last batch (13 of 16 rows are real) included."""
    settings, batch = _settings(), _batch(rng)
    alone, metrics = _run(settings, batch, 1)
    assert alone["conv1"]["kernel"].dtype == np.float64
    assert metrics.examples == 13
    for devices in (2, 4, 8):
        together, same = _run(settings, batch, devices)
        assert _largest_difference(alone, together) < 1e-12
        assert np.allclose(same, metrics, rtol=1e-12)


def test_padding_rows_change_nothing(rng):
    settings, batch = _settings(crop=False, flip=False, color_noise=False), _batch(rng)
    other = batch._replace(images=np.where(batch.weights[:, None, None, None] > 0, batch.images, 255 - batch.images))
    assert _largest_difference(_run(settings, batch, 8)[0], _run(settings, other, 8)[0]) == 0


def test_the_gradient_is_that_of_the_mean_over_real_examples(rng):
    """One plain SGD step over 4 devices against the gradient of the loss, written down without any of it."""
    settings = _settings(crop=False, flip=False, color_noise=False, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    batch = _batch(rng)
    model = AlexNet(choose_variant(settings), 10, "pytorch", 0.5, jnp.float64, jnp.float64)
    before = model.init(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]
    images = (batch.images[:13, 2:26, 2:26] - _Measured.mean) / _Measured.std.astype(np.float32)

    def loss(params):
        logits: Any = model.apply({"params": params}, jnp.asarray(images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels[:13]).mean()

    after, _ = _run(settings, batch, 4, count=1)
    expected = jax.tree.map(lambda w, g: w - 0.01 * g, before, jax.grad(loss)(before))
    # The statistics are kept in float32; nothing else is.
    assert _largest_difference(expected, after) < 1e-8
    assert _largest_difference(before, after) > 1e-4


def test_dropout_masks_differ_between_examples_layers_and_steps():
    model = AlexNet("single_column", 10)
    image = jnp.zeros((1, 67, 67, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-3, leaf.dtype), variables)
    images = jnp.ones((4, 67, 67, 3))

    def masks(key, first=0):
        seen: Any = model.apply(
            variables, images, train=True, capture=True, first_example=first, rngs={"dropout": jax.random.key(key)}
        )[1]
        return np.asarray(seen["drop6"] > 0), np.asarray(seen["drop7"] > 0)

    six, seven = masks(0)
    assert 0.47 < six.mean() < 0.53
    again, _ = masks(0)
    assert (six == again).all()
    pairs = [six[0] == six[1], six[2] == six[3], six[0] == seven[0], six[0] == masks(1)[0][0]]
    for agreement in pairs:
        assert 0.45 < agreement.mean() < 0.55
    # The second half of a batch on a second device gets the masks it has on one.
    assert (masks(0, first=2)[0][:2] == six[2:]).all()


def test_augmentation_differs_between_examples_and_steps():
    augmentation = augment.Augmentation(24, "half", crop=True, flip=True, color_noise=True)
    places = jnp.arange(64)
    one, two = (augment.draw(jax.random.key(key), places, augmentation, (32, 32)) for key in (0, 1))
    assert set(np.asarray(one.top)) == set(range(9))  # every offset of 24 in 32
    assert 16 < int(one.flip.sum()) < 48
    assert not (one.top == two.top).all()
    assert not (one.flip == two.flip).all()
    assert 0.07 < float(one.noise.std()) < 0.13
    half = augment.draw(jax.random.key(0), places[32:], augmentation, (32, 32))
    assert (half.left == one.left[32:]).all()


def test_crop_flip_and_normalisation_by_hand(rng):
    images = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    draws = augment.Draws(
        jnp.array([2, 0]), jnp.array([1, 3]), jnp.array([False, True]), jnp.zeros((2, 3), jnp.float32)
    )
    augmentation = augment.Augmentation(4, "half", crop=True, flip=True)
    got = augment.apply(jnp.asarray(images), draws, augmentation, {})
    expected = np.stack([images[0, 2:6, 1:5], images[1, 0:4, 3:7][:, ::-1]]) / 127.5 - 1
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_torchvision_normalisation_of_black_and_white():
    """https://github.com/pytorch/vision/issues/2950: the inputs that black and white images give."""
    pixels = jnp.asarray(np.array([0.0, 255.0]))[:, None, None, None] * jnp.ones((2, 1, 1, 3))
    got = augment.normalized(pixels, "imagenet", {})
    np.testing.assert_allclose(got[0, 0, 0], (-2.1179, -2.0357, -1.8044), atol=5e-5)
    np.testing.assert_allclose(got[1, 0, 0], (2.2489, 2.4286, 2.6400), atol=5e-5)


def test_weights_cast_once_give_the_same_logits(rng):
    """And a bias, which training keeps in float32, is no exception."""
    model = AlexNet("cifar_11pct", dtype=jnp.bfloat16)
    settings, batch = _settings(crop=False, flip=False, color_noise=False), _batch(rng)
    params = model.init(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) / 30, params)
    augmentation, mesh = augment.Augmentation.of(settings), data_mesh(jax.devices()[:2])
    statistics = steps.replicate(augment.statistics_for(augmentation, _Measured), mesh)
    step = steps.make_eval_step(model, augmentation, mesh)
    cast = steps.in_compute_dtype(params, model)
    assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    trees, batch = (steps.replicate(tree, mesh) for tree in (params, cast)), steps.split(batch, mesh)
    logits, once = (step(tree, batch, statistics)[0] for tree in trees)
    np.testing.assert_array_equal(logits, once)
