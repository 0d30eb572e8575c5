"""Derivatives of every order and both modes, per-example derivatives, and exported programs, of networks and ops."""

from collections.abc import Callable
from functools import partial
from typing import Any

import facts
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import export, lax
from numpy.testing import assert_allclose, assert_array_equal

from jax_alexnet import layer_specs as specs
from jax_alexnet.model import AlexNet
from jax_alexnet.ops import convolution, dense, lrn, pooling
from jax_alexnet.ops.bias import add_bias
from jax_alexnet.ops.cpu import onednn

# Compiled in less time, for what runs once.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Every kind of layer with an operation of its own, on 15 pixels: strides, groups, clipped windows, columns.
TINY = specs.Variant(
    "tiny",
    "for tests",
    15,
    3,
    "cifar",
    (
        specs.Conv("conv1", 4, 4, stride=2, ceil=True, std=0.3, bias=0.1),
        specs.Relu("relu1"),
        specs.LRN("lrn1", size=3, alpha=0.4, beta=0.75, k=1.5, divide_by_size=False, columns=2),
        specs.Pool("pool1", "max", ceil=True),
        specs.Conv("conv2", 6, 3, padding=1, groups=2, std=0.5, bias=0.2),
        specs.Relu("relu2"),
        specs.SpatialNorm("rnorm2", size=3, alpha=0.6, beta=0.75),
        specs.Pool("pool2", "average", window=2, stride=1),
        specs.LocalConv("local3", 4, 2, padding=0, std=0.5, bias=0.1),
        specs.AdaptivePool("avgpool", 2),
        specs.Dense("fc4", None, std=0.5),
    ),
)


def loss_of(network: AlexNet, params: Any, images: jax.Array) -> jax.Array:
    logits: Any = network.apply({"params": params}, images)
    return -jnp.sum(jax.nn.log_softmax(logits.astype(np.promote_types(logits.dtype, np.float32)))[:, 0])


def weights_of(network: AlexNet, images: jax.Array, rng: np.random.Generator) -> Any:
    """Normal ones, of a scale that keeps activations in theirs; float64."""
    shapes: Any = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / (leaf.size / leaf.shape[-1]) ** 0.5), shapes["params"]
    )


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def inner(one: Any, other: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)), start=jnp.zeros(()))


def in_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def assert_near(found: Any, expected: Any, error: float) -> None:
    """Each array, but for so large a share of its length."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        wanted = np.asarray(other, float)
        assert np.linalg.norm(wanted) > 0
        assert np.linalg.norm(np.asarray(one, float) - wanted) <= error * np.linalg.norm(wanted)


# Between them every kind of layer, with and without columns: the others have none besides.
SOON = ("cuda_convnet_2012", "one_weird_trick", "cifar_18pct", "cifar_11pct")


@pytest.mark.parametrize(
    "name", [name if name in SOON else pytest.param(name, marks=pytest.mark.slow) for name in facts.NETWORKS]
)
def test_every_network_has_all_derivatives(name: str) -> None:
    """Traced, not computed: what JAX can't differentiate it refuses there."""
    network = AlexNet(name)
    image = jax.ShapeDtypeStruct((1, *[facts.NETWORKS[name].image_size] * 2, 3), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), image)["params"]

    def traced(params: Any, images: jax.Array) -> None:
        loss = partial(loss_of, network)
        gradient = jax.grad(loss, (0, 1))
        jax.linearize(loss, params, images)[1](params, images)  # one direction as good as another
        jax.jvp(jax.jit(gradient), (params, images), (params, images))
        jax.grad(lambda *both: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(*both))), (0, 1))(params, images)

    jax.eval_shape(traced, weights, image)


def test_all_derivatives_in_float64(rng: np.random.Generator) -> None:
    """Of the loss and of its gradient along a direction, by every road, against differences."""
    network = AlexNet(TINY, dtype=jnp.dtype("float64"), param_dtype=jnp.dtype("float64"))
    loss, images = partial(loss_of, network), jnp.asarray(rng.normal(size=(2, 15, 15, 3)))
    at = weights_of(network, images, rng), images
    along, step = random_like(at, rng), 1e-6
    gradient = jax.grad(loss, (0, 1))

    def of_biases(biases: jax.Array) -> jax.Array:
        return loss({**at[0], "conv1": {**at[0]["conv1"], "bias": biases}}, images)

    @quickly
    def by_every_road(at: Any, along: Any) -> Any:
        value, slope = jax.jvp(loss, at, along)
        slopes = slope, jax.linearize(loss, *at)[1](*along)
        forward_over_reverse = jax.jvp(gradient, at, along)[1]
        reverse_over_reverse = jax.grad(lambda *at: inner(gradient(*at), along), (0, 1))(*at)
        reverse_over_forward = jax.grad(lambda *at: jax.jvp(loss, at, along)[1], (0, 1))(*at)
        hessian = jax.hessian(of_biases)(at[0]["conv1"]["bias"])
        return value, slopes, (forward_over_reverse, reverse_over_reverse, reverse_over_forward), hessian

    value, slopes, seconds, hessian = by_every_road(at, along)
    both = quickly(jax.value_and_grad(loss, (0, 1)))

    def differences(along: Any) -> Any:
        ahead, behind = (both(*jax.tree.map(lambda x, t, s=s: x + s * t, at, along)) for s in (step, -step))
        return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)

    slope, second = differences(along)
    assert float(value) == pytest.approx(float(both(*at)[0]), rel=1e-12)
    for found in slopes:
        assert float(found) == pytest.approx(float(slope), rel=1e-6)
        assert float(found) == pytest.approx(float(inner(both(*at)[1], along)), rel=1e-10)
    for found in seconds:
        assert_near(found, second, 1e-6)
    zero = jax.tree.map(jnp.zeros_like, along)
    for row, unit in zip(hessian, jnp.eye(4), strict=True):
        zero[0]["conv1"]["bias"] = unit
        assert_near(row, differences(zero)[1][0]["conv1"]["bias"], 1e-5)
    assert_allclose(hessian, hessian.T, rtol=0, atol=1e-12)


def test_derivatives_of_the_default_forms(rng: np.random.Generator) -> None:
    """In float32, on CPUs by oneDNN where it may be used: a gradient's derivative, near that in float64."""
    images = jnp.asarray(rng.normal(size=(4, 15, 15, 3)))
    exact, default = (AlexNet("cifar_18pct", dtype=jnp.dtype(dtype)) for dtype in ("float64", "float32"))
    params = weights_of(exact, images, rng)
    along = random_like(params, rng)

    def second(network: AlexNet, params: Any, along: Any, images: jax.Array) -> Any:
        return jax.jvp(jax.grad(lambda params: loss_of(network, params, images)), (params,), (along,))

    expected = quickly(partial(second, exact))(params, along, images)
    assert_near(quickly(partial(second, default))(*in_float32((params, along, images))), expected, 1e-4)


@pytest.mark.parametrize("cpu", ["xla", "winograd"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_switch_leaves_onednn_out_of_everything(cpu: Any, dtype: str) -> None:
    network = AlexNet("cifar_18pct", dtype=jnp.dtype(dtype), cpu_convolution=cpu)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 32, 32, 3)))["params"]
    gradient = jax.jit(jax.grad(partial(loss_of, network), (0, 1)))
    assert "__onednn" not in gradient.lower(shapes, jax.ShapeDtypeStruct((4, 32, 32, 3), np.float32)).as_text()


# --- Operations, against JAX's own derivatives of XLA's own forms


def plain_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def all_derivatives(function: Callable[..., jax.Array], at: tuple, along: tuple, weights: jax.Array) -> list[Any]:
    """Values, tangents, gradients, and derivatives of gradients in both modes."""

    def gradient(*at: jax.Array) -> Any:
        return jax.vjp(function, *at)[1](weights)

    tangents = jax.jvp(function, at, along)
    second = jax.vjp(gradient, *at)[1](along)
    third = jax.jvp(lambda *at: jax.vjp(gradient, *at)[1](along), at, along)
    return jax.tree.leaves([tangents, gradient(*at), jax.jvp(gradient, at, along)[1], second, third])


@pytest.mark.parametrize("cpu", ["onednn", "winograd", "xla"])
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 2), (2, 1, 1), (1, 3, 1)])
def test_convolution(cpu: Any, stride: int, padding: int, groups: int, rng: np.random.Generator) -> None:
    """Integers so small that float32 holds every sum, whatever the order."""
    if cpu == "onednn" and (reason := onednn.reason_against(jnp.dtype("float32"))):
        pytest.skip(reason)
    x, kernel, dx, dkernel = (
        jnp.asarray(rng.integers(-2, 3, shape), jnp.float32) for shape in 2 * ((2, 7, 6, 32), (3, 3, 32 // groups, 32))
    )
    place = {"stride": stride, "padding": padding, "groups": groups}
    weights = jnp.asarray(rng.integers(-2, 3, plain_conv(x, kernel, **place).shape), jnp.float32)
    ours, theirs = partial(convolution.conv, cpu=cpu, **place), partial(plain_conv, **place)
    results = [quickly(partial(all_derivatives, f))((x, kernel), (dx, dkernel), weights) for f in (ours, theirs)]
    for found, expected in zip(*results, strict=True):
        assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_and_bias(dtype: str, rng: np.random.Generator) -> None:
    """Exact integers again: products of two are at most 2^8."""
    x, kernel, dx, dkernel = (jnp.asarray(rng.integers(-1, 2, shape), dtype) for shape in 2 * ((4, 8), (8, 6)))
    bias, dbias = (jnp.asarray(rng.integers(-1, 2, 6), jnp.float32) for _ in range(2))
    weights = jnp.asarray(rng.integers(-1, 2, (4, 6)), dtype)

    def ours(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return add_bias(dense.multiply(x, kernel), bias)

    def theirs(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return x @ kernel + bias.astype(x.dtype)[None]

    results = [
        quickly(partial(all_derivatives, f))((x, kernel, bias), (dx, dkernel, dbias), weights) for f in (ours, theirs)
    ]
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        assert_array_equal(np.asarray(found, float), np.asarray(expected, float))


def test_max_pool(rng: np.random.Generator) -> None:
    """The tangent of a window is that of its first maximum; there is nothing behind it."""
    x = jnp.asarray(rng.integers(0, 4, (2, 8, 7, 3)), jnp.float64)  # ties
    along = jnp.asarray(rng.normal(size=x.shape))
    value, tangent = jax.jvp(lambda x: pooling.max_pool(x, 3, 2, ceil=True), (x,), (along,))
    weights = jnp.asarray(rng.normal(size=value.shape))

    def gradient(x: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: pooling.max_pool(x, 3, 2, ceil=True), x)[1](weights)[0]

    back = oracles.max_pool_gradient(nchw(x), nchw(weights), 3, 2, ceil=True)
    assert_allclose(np.vdot(tangent, weights), np.vdot(nchw(along), back), rtol=1e-13)
    assert not np.any(np.asarray(jax.jvp(gradient, (x,), (along,))[1]))


def nchw(x: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize("columns", [1, 2])
def test_response_norm(columns: int, rng: np.random.Generator) -> None:
    """Against the formula written down for JAX to differentiate."""
    settings = {"size": 3, "alpha": 0.7, "beta": 0.75, "k": 1.3}

    def theirs(x: jax.Array) -> jax.Array:
        apart = x.reshape(*x.shape[:-1], columns, -1)
        padded = jnp.pad(apart**2, [(0, 0)] * x.ndim + [(1, 1)])
        width = apart.shape[-1]
        summed = padded[..., :width] + padded[..., 1 : width + 1] + padded[..., 2:]
        return (apart / (1.3 + 0.7 * summed) ** 0.75).reshape(x.shape)

    ours = partial(lrn.local_response_norm, divide_by_size=False, columns=columns, **settings)
    x, along, weights = (jnp.asarray(rng.normal(size=(2, 3, 3, 8)) * 2) for _ in range(3))
    results = [quickly(partial(all_derivatives, f))((x,), (along,), weights) for f in (ours, theirs)]
    for found, expected in zip(*results, strict=True):
        assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_gradients_of_each_example(rng: np.random.Generator) -> None:
    """`jax.vmap` of a gradient with common weights: each example's own, as computed alone."""
    network, images = AlexNet(TINY), jnp.asarray(rng.normal(size=(2, 15, 15, 3)), jnp.float32)
    params = in_float32(weights_of(network, images, rng))
    of_one = jax.grad(lambda params, image: loss_of(network, params, image[None]))
    together = quickly(jax.vmap(of_one, (None, 0)))(params, images)
    for i in range(2):
        assert_near(jax.tree.map(lambda leaf, i=i: leaf[i], together), quickly(of_one)(params, images[i]), 1e-5)


# --- Exported programs


def test_export(rng: np.random.Generator) -> None:
    """A default network and its gradient with a batch of any size: the same numbers, by XLA's own operations."""
    network = AlexNet("cifar_18pct")
    images = jnp.asarray(rng.normal(size=(5, 16, 16, 3)), jnp.float32)
    params = in_float32(weights_of(network, images, rng))
    (batch,) = export.symbolic_shape("batch")
    any_batch = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)

    def both(params: Any, images: jax.Array) -> Any:
        return network.apply({"params": params}, images), jax.grad(partial(loss_of, network))(params, images)

    exported = export.export(jax.jit(both), platforms=["cpu", "cuda"])(params, any_batch)
    assert_near(exported.call(params, images), quickly(both)(params, images), 1e-5)


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ("cifar_18pct", "bfloat16"),
        ("two_column", "float32"),
        pytest.param("cifar_18pct", "float32", marks=(pytest.mark.slow, pytest.mark.matrix)),
        pytest.param("two_column", "bfloat16", marks=(pytest.mark.slow, pytest.mark.matrix)),
    ],
)
def test_export_with_a_batch_of_one_size(model: str, dtype: str) -> None:
    """JAX refuses calls that it doesn't know, so that nothing more than the attempt is needed."""
    network = AlexNet(model, dtype=jnp.dtype(dtype))
    images = jax.ShapeDtypeStruct((4, 36, 36, 3), jnp.float32)
    params: Any = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    assert "__onednn" not in export.export(jax.jit(jax.grad(partial(loss_of, network))))(params, images).mlir_module()
    if onednn.usable(jnp.dtype(dtype), "auto"):
        assert "__onednn" in jax.jit(jax.grad(partial(loss_of, network))).lower(params, images).as_text()
