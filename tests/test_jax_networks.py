"""Each layer of each JAX network against what the sources say of it, computed by the float64 loops."""

from functools import partial
from typing import Any, NamedTuple

import facts
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny import QUICKLY

from alexnet_io.errors import UserError
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS, spanning_columns


class Rules(NamedTuple):
    """What the sources say beyond sizes: conv1's stride, padding and rounding, groups, pools, smallest image."""

    stride: int
    padding: int
    ceil_conv: bool
    ceil_pool: bool
    groups: int
    smallest: int


# The smallest image, by hand, from a last pool with one output. Backwards through floor pools: 3, 7, 15 values
# after conv1; through ceil pools, whose last window may be clipped: 2, 4, 8. Then conv1: 11 + 4 (15 - 1) = 67,
# less 2 + 2 of padding; 11 + 4 (8 - 1) = 39; in ceil mode one pixel beyond 11 + 4 (7 - 1).
RULES = {
    "single_column": Rules(4, 0, False, False, 1, 67),  # [SD]
    "two_column": Rules(4, 0, True, True, 2, 36),  # [S], whose input of 224 the paper has
    "cuda_convnet_2012": Rules(4, 0, True, True, 2, 36),  # [S]
    "caffe_alexnet": Rules(4, 0, False, True, 2, 39),  # [K]
    "caffenet": Rules(4, 0, False, True, 2, 39),  # [K]
    "one_weird_trick": Rules(4, 2, False, False, 1, facts.TORCHVISION_MIN_SIZE),  # [TV]
    "one_weird_trick_lrn": Rules(4, 0, True, True, 1, 36),  # [C2]
    "cifar_18pct": Rules(1, 2, False, True, 1, 8),  # [S]
    "cifar_13pct": Rules(1, 2, False, True, 1, 4),  # [S]
    "cifar_11pct": Rules(1, 2, False, True, 1, 4),  # [C1]
    "cifar_80sec": Rules(1, 2, False, True, 1, 8),  # [S]
}
# Compiled in less time, for what runs once.
quickly = partial(jax.jit, compiler_options=QUICKLY)
GROUPED = ("conv2", "conv4", "conv5")  # conv3 sees both columns [P] section 3.5
AVERAGED: dict[str, tuple[str, ...]] = dict.fromkeys(("cifar_18pct", "cifar_80sec"), ("pool2", "pool3"))


def nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def expected_output(model: str, name: str, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The layer's output, channels first, from its input, channels first, and its JAX weights."""
    rules = RULES[model]
    if name.startswith("conv"):
        first = name == "conv1"
        return oracles.conv(
            x,
            weights["kernel"].transpose(3, 2, 0, 1),
            weights["bias"],
            stride=rules.stride if first else 1,
            padding=rules.padding if first else weights["kernel"].shape[0] // 2,
            groups=rules.groups if name in GROUPED else 1,
            ceil=first and rules.ceil_conv,
        )
    if name.startswith("local"):
        return oracles.local_conv(x, weights["kernel"].transpose(0, 1, 5, 4, 2, 3), weights["bias"], padding=1)
    if name.startswith("fc"):
        rows = np.moveaxis(x, 1, -1).reshape(len(x), -1)  # height, width, channel
        return rows @ weights["kernel"] + weights["bias"]
    if name.startswith("lrn"):
        return oracles.lrn(x, **facts.LRN_SETTINGS[model]._asdict())
    if name.startswith("rnorm"):
        return oracles.spatial_response_norm(x, **facts.SPATIAL_NORM_SETTINGS[model]._asdict())
    if name.startswith("pool"):
        pool = oracles.avg_pool if name in AVERAGED.get(model, ()) else oracles.max_pool
        return pool(x, 3, 2, ceil=rules.ceil_pool)
    if name == "avgpool":
        return oracles.adaptive_avg_pool(x, (6, 6))
    if name.startswith("relu"):
        return np.maximum(x, 0)
    assert name.startswith("drop")
    return np.where(mask_of(x.shape), 2 * x, 0)  # rate 0.5: what is kept is doubled


def mask_of(shape: tuple[int, ...]) -> np.ndarray:
    """Every third unit dropped, counted channels first."""
    return (np.arange(np.prod(shape)) % 3 > 0).reshape(shape)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def weights_for(network: AlexNet, images: jax.ShapeDtypeStruct, rng: np.random.Generator) -> dict[str, Any]:
    """Cheap weights without a pattern that a transposition would keep, biases far from zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    few = rng.normal(size=9973)  # a prime

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        fan_in = 4 if path[-1].key == "bias" else np.prod(leaf.shape) // leaf.shape[-1]
        return np.resize(np.roll(few, len(path[0].key) + leaf.size % 7), leaf.shape) / fan_in**0.5

    return jax.tree_util.tree_map_with_path(fill, shapes)


def dropout_masks(model: str) -> dict[str, jax.Array]:
    """Masks of the inputs of the dropout layers, which are maps where the layer comes before fc6."""
    masks = {}
    for name in ("drop6", "drop7"):
        before_fc6 = model == "one_weird_trick" and name == "drop6"
        masks[name] = jnp.asarray(channels_last(mask_of((1, 256, 6, 6))) if before_fc6 else mask_of((1, 4096)))
    return masks


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_every_layer_computes_what_the_sources_say(model: str, rng: np.random.Generator) -> None:
    """In float64, every layer fed its actual input, on images that are not square and large enough for LRN."""
    height, width = RULES[model].smallest + 1, RULES[model].smallest + 10
    network = AlexNet(model, classes=7, dtype=jnp.dtype("float64"), param_dtype=jnp.dtype("float64"))
    images = 100 * rng.normal(size=(1, height, width, 3))
    weights = weights_for(network, jax.ShapeDtypeStruct(images.shape, images.dtype), rng)
    masks = {} if model.startswith("cifar") else dropout_masks(model)
    order: list[str] = []

    @quickly
    def run(params: dict, images: jax.Array) -> Any:
        _, activations = network.apply({"params": params}, images, train=True, capture=True, dropout_masks=masks)
        order.extend(activations)
        return activations

    activations = run(weights, jnp.asarray(images))
    assert order == list(facts.NETWORKS[model].layers)
    x = nchw(images)
    for name in order:
        y = np.asarray(activations[name])
        assert y.dtype == np.float64
        y = nchw(y) if y.ndim == 4 else y
        expected = expected_output(model, name, x, weights.get(name, {}))
        assert np.any(expected != x if expected.shape == x.shape else expected), f"{name} shows nothing"
        assert_allclose(y, expected, rtol=1e-11, atol=1e-13 * np.abs(expected).max(), err_msg=name)
        x = y


# --- Columns


def column_gradient(network: AlexNet, layer: str, rng: np.random.Generator) -> np.ndarray:
    """Gradient, in conv1's kernel, of a sum over the first column's half of `layer`."""
    images = jnp.asarray(rng.normal(scale=30.0, size=(1, 68, 68, 3)), jnp.float32)
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    weights = jax.tree.map(jnp.float32, weights_for(network, shape, rng))

    @quickly
    @jax.grad
    def gradient(kernel: jax.Array) -> jax.Array:
        params = {**weights, "conv1": {**weights["conv1"], "kernel": kernel}}
        activations: dict = network.apply({"params": params}, images, capture=True)[1]  # type: ignore[assignment]
        half = activations[layer].shape[-1] // 2
        return jnp.sum(activations[layer][..., :half] ** 2)

    return np.asarray(gradient(weights["conv1"]["kernel"]))


def test_columns_meet_in_conv3_alone(rng: np.random.Generator) -> None:
    """The gradient across columns is exactly zero up to conv3, whose kernels see all maps, [P] section 3.2."""
    two_column = AlexNet("two_column", classes=2)
    apart = column_gradient(two_column, "pool2", rng)
    assert np.all(np.any(apart[..., :48] != 0, axis=(0, 1, 2)))
    assert not np.any(apart[..., 48:])
    together = column_gradient(two_column, "conv3", rng)
    assert np.all(np.any(together != 0, axis=(0, 1, 2)))


@pytest.mark.parametrize("network", [AlexNet("caffe_alexnet"), AlexNet(spanning_columns(VARIANTS["two_column"]))])
def test_spanning_windows_join_the_columns(network: AlexNet, rng: np.random.Generator) -> None:
    """Caffe's windows cross from map 47 to 48: two maps across, and no more, at each of the two norms."""
    apart = column_gradient(network.clone(classes=2), "relu2", rng)
    assert np.flatnonzero(np.any(apart != 0, axis=(0, 1, 2))).tolist() == list(range(50))


# --- What the networks refuse


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_the_smallest_size_works_and_the_next_is_refused_by_name(model: str) -> None:
    smallest = RULES[model].smallest
    network = AlexNet(model)

    def init(*shape: int) -> Any:
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.eval_shape(network.init, jax.random.key(0), images)

    init(1, smallest, smallest, 3)
    named = f"{smallest}x{smallest}"
    for shape in ((1, smallest - 1, smallest, 3), (1, smallest, smallest - 1, 3), (1, 1, 1, 3)):
        with pytest.raises(UserError, match=named):
            init(*shape)
    side = facts.NETWORKS[model].image_size
    for shape in ((side, side, 3), (1, 3, side, side), (1, side, side, 1), (1, side, side, 4)):
        with pytest.raises(UserError, match=named):
            init(*shape)


def test_other_weights_are_refused_by_layer_and_shape() -> None:
    """https://github.com/tflearn/tflearn/pull/193: weights of 6x6 maps do not fit images that leave others."""
    network = AlexNet("two_column")

    def weights(model: AlexNet, side: int) -> Any:
        images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return jax.eval_shape(model.init, jax.random.key(0), images)

    def apply(params: Any, side: int) -> Any:
        images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return jax.eval_shape(network.apply, params, images)

    own = weights(network, 224)
    with pytest.raises(UserError, match=r"fc6.*\(9216, 4096\).*\(4096, 4096\)"):
        apply(own, 160)
    with pytest.raises(UserError, match=r"fc8.*\(4096, 10\).*\(4096, 1000\)"):
        apply(weights(AlexNet("two_column", classes=10), 224), 224)
    # https://github.com/pytorch/vision/issues/549: not the 2012 net, whatever its name says
    with pytest.raises(UserError, match=r"conv1.*\(11, 11, 3, 64\).*\(11, 11, 3, 96\)"):
        apply(weights(AlexNet("one_weird_trick"), 224), 224)


def test_integer_images_are_refused() -> None:
    with pytest.raises(UserError, match="uint8"):
        AlexNet("cifar_18pct").init(jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))


def test_logits_alone_unless_asked(rng: np.random.Generator) -> None:
    network = AlexNet("cifar_18pct")
    images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    weights = {"params": weights_for(network, jax.ShapeDtypeStruct(images.shape, images.dtype), rng)}

    @quickly
    def run(weights: Any, images: jax.Array) -> Any:
        return network.apply(weights, images), network.apply(weights, images, capture=True)

    logits, (again, activations) = run(weights, images)
    assert isinstance(logits, jax.Array)
    assert logits.shape == (2, 10)
    assert_array_equal(logits, again)
    assert_array_equal(logits, activations["fc10"])
