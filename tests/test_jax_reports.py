"""What people reported of other implementations, tried on this one: the smallest input and the right value."""

from functools import partial
from typing import Any

import compiling
import facts
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet.layer_specs import Dense as DenseRow
from jax_alexnet.layers import Dense, Dropout
from jax_alexnet.model import AlexNet
from jax_alexnet.ops.convolution import conv, local_conv
from jax_alexnet.ops.lrn import local_response_norm
from jax_alexnet.ops.pooling import adaptive_average_pool, average_pool, max_pool
from jax_alexnet.optim import make_optimizer
from jax_alexnet.recipes import resolve
from jax_alexnet.variants import VARIANTS

PAPER = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0}


# --- Response normalisation


def test_alpha_divided_by_the_window_or_not() -> None:
    """https://github.com/BVLC/caffe/issues/1453 and https://github.com/pytorch/pytorch/pull/4667."""
    x = jnp.arange(1.0, 5.0)
    mean = local_response_norm(x, **PAPER)
    total = local_response_norm(x, **PAPER, divide_by_size=False)
    assert_allclose(mean, [0.3083678, 0.4204482, 0.6306723, 0.8570162], atol=6e-8)
    assert_allclose(total, [0.1250000, 0.1486509, 0.2229763, 0.3044659], atol=6e-8)
    assert_allclose(local_response_norm(x, **{**PAPER, "alpha": 5.0}), total, rtol=1e-15)


def test_size_is_the_whole_window_not_its_radius() -> None:
    """https://github.com/alibaba/MNN/pull/192 and https://github.com/tensorflow/models/pull/1536."""
    y = local_response_norm(jnp.arange(1.0, 5.0), **PAPER, divide_by_size=False)
    assert abs(float(y[0]) - 0.125) < 1e-15
    assert abs(float(y[0]) - 0.0743254) > 0.05  # radius 5


def test_even_windows_look_left_unless_told() -> None:
    """https://github.com/apache/mxnet/issues/11281 and https://github.com/tracel-ai/burn/pull/4765."""
    x, settings = jnp.arange(1.0, 5.0), {"size": 2, "alpha": 1.0}
    left = local_response_norm(x, **settings)
    assert_allclose(left, [0.7377879, 0.7815899, 0.6619502, 0.5679494], atol=6e-8)
    right = local_response_norm(x, **settings, even="right")
    assert_allclose(right, [0.3907950, 0.4413001, 0.4259621, 0.7698004], atol=6e-8)


@pytest.mark.parametrize(
    ("size", "y"), [(3, [1 / 2, 1 / 3, 1 / 3, 1 / 2]), (5, [1 / 3, 1 / 4, 1 / 4, 1 / 3]), (7, [1 / 4] * 4)]
)
def test_ones_show_the_axis_and_the_edges(size: int, y: list[float]) -> None:
    """https://github.com/FluxML/Flux.jl/pull/720: 1/2 everywhere if the norm ran over another axis."""
    ones = jnp.ones((1, 2, 2, 4))
    out = local_response_norm(ones, size=size, alpha=1.0, beta=1.0, k=0.0, divide_by_size=False)
    assert_allclose(out, np.broadcast_to(y, (1, 2, 2, 4)), rtol=1e-15)


def test_the_order_of_norm_pool_and_relu_shows() -> None:
    """https://github.com/BVLC/caffe/issues/296 and /4202, https://github.com/chainer/chainer/pull/1650."""
    pixels = jnp.asarray([[[[4.0, 1.0], [3.0, 9.0]]]]).repeat(2, axis=1)
    norm_first = max_pool(local_response_norm(pixels, **PAPER), 2, 2)
    pool_first = local_response_norm(max_pool(pixels, 2, 2), **PAPER)
    assert_allclose(norm_first.ravel(), [1.1291839, 0.9516341], atol=6e-8)
    assert_allclose(pool_first.ravel(), [0.4020219, 0.9045492], atol=6e-8)
    signed = jnp.asarray([-3.0, 1.0])
    assert_allclose(local_response_norm(jax.nn.relu(signed), **PAPER), [0, 0.5535833], atol=6e-8)
    assert_allclose(jax.nn.relu(local_response_norm(signed, **PAPER)), [0, 0.3535534], atol=6e-8)


# --- Convolution, and what fully connected layers read


def test_kernels_are_height_width_in_out_and_not_flipped() -> None:
    """https://github.com/huggingface/transformers/pull/11883: 4321; 4231 if height and width were exchanged."""
    x = jnp.asarray([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 2, 2, 1)
    kernel = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    assert conv(x, kernel, stride=1, padding=0, groups=1).item() == 4321
    assert local_conv(x, kernel.reshape(1, 1, 2, 2, 1, 1), padding=0).item() == 4321


def test_fully_connected_rows_are_height_width_channel() -> None:
    """https://discuss.pytorch.org/t/184306: channels [1, 2] and [3, 4] of two columns, 4231 in this order."""
    x = jnp.asarray([[1.0, 3.0], [2.0, 4.0]]).reshape(1, 1, 2, 2)
    kernel = jnp.asarray([1.0, 10.0, 100.0, 1000.0]).reshape(4, 1)
    layer = Dense(DenseRow("fc6", 1), features=1)
    assert layer.apply({"params": {"kernel": kernel, "bias": jnp.zeros(1)}}, x).item() == 4231  # type: ignore[union-attr]
    # PyTorch's columns are channel, height, width; moved to this order they give its 4321.
    moved = kernel.reshape(2, 1, 2, 1).transpose(1, 2, 0, 3).reshape(4, 1)
    assert layer.apply({"params": {"kernel": moved, "bias": jnp.zeros(1)}}, x).item() == 4321  # type: ignore[union-attr]


def test_groups_do_not_see_each_other(rng: np.random.Generator) -> None:
    """https://github.com/tensorflow/tensorflow/issues/45751 and /pull/36773: values and gradients, exactly."""
    x, kernel = jnp.asarray(rng.normal(size=(1, 5, 5, 6))), jnp.asarray(rng.normal(size=(3, 3, 3, 8)))

    def grouped(x: jax.Array) -> jax.Array:
        return conv(x, kernel, stride=1, padding=1, groups=2)

    changed = grouped(x.at[..., :3].add(1.0))
    assert_array_equal(changed[..., 4:], grouped(x)[..., 4:])
    assert np.all(changed[..., :4] != grouped(x)[..., :4])
    dx = jax.grad(lambda v: jnp.sum(grouped(v)[..., :4] ** 2))(x)
    assert not np.any(dx[..., 3:])
    assert np.all(dx[..., :3])


@pytest.mark.parametrize(
    ("size", "stride", "padding", "groups", "ceil", "image"),
    [
        (11, 4, 2, 1, False, (21, 24)),
        (11, 4, 0, 1, True, (20, 25)),
        (11, 4, 0, 1, True, (11, 13)),
        (5, 1, 2, 2, False, (6, 7)),
        (3, 2, 1, 4, True, (6, 9)),
    ],
)
def test_convolution_and_its_gradients(
    size: int, stride: int, padding: int, groups: int, ceil: bool, image: tuple[int, int], rng: np.random.Generator
) -> None:
    """https://github.com/google/flax/issues/2993: 'SAME' would pad conv1 by 3 and 4. It is linear in each input."""
    x, kernel = rng.normal(size=(2, *image, 4)), rng.normal(size=(size, size, 4 // groups, 4))

    def oracle(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        own: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups, "ceil": ceil}
        return np.moveaxis(oracles.conv(np.moveaxis(x, -1, 1), kernel.transpose(3, 2, 0, 1), **own), 1, -1)

    @jax.jit
    def ours(x: jax.Array, kernel: jax.Array, g: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x, k: conv(x, k, stride=stride, padding=padding, groups=groups, ceil=ceil), x, kernel)
        return y, *vjp(g)

    expected = oracle(x, kernel)
    g = rng.normal(size=expected.shape)
    y, dx, dkernel = ours(*map(jnp.asarray, (x, kernel, g)))
    assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
    # <g, conv(x, k)> = <dx, x'> along every direction x' by linearity; three random ones, and the same for k.
    for _ in range(3):
        x_way, kernel_way = rng.normal(size=x.shape), rng.normal(size=kernel.shape)
        assert np.sum(np.asarray(dx) * x_way) == pytest.approx(np.sum(g * oracle(x_way, kernel)), rel=1e-9)
        assert np.sum(np.asarray(dkernel) * kernel_way) == pytest.approx(np.sum(g * oracle(x, kernel_way)), rel=1e-9)


def test_local_convolution_and_its_gradients(rng: np.random.Generator) -> None:
    x, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(4, 5, 3, 3, 3, 2))

    def oracle(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        moved = kernel.transpose(0, 1, 5, 4, 2, 3)
        return np.moveaxis(oracles.local_conv(np.moveaxis(x, -1, 1), moved, padding=1), 1, -1)

    @jax.jit
    def ours(x: jax.Array, kernel: jax.Array, g: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x, k: local_conv(x, k, padding=1), x, kernel)
        return y, *vjp(g)

    g = rng.normal(size=(2, 4, 5, 2))
    y, dx, dkernel = ours(*map(jnp.asarray, (x, kernel, g)))
    assert_allclose(y, oracle(x, kernel), rtol=1e-12, atol=1e-13)
    for _ in range(3):
        x_way, kernel_way = rng.normal(size=x.shape), rng.normal(size=kernel.shape)
        assert np.sum(np.asarray(dx) * x_way) == pytest.approx(np.sum(g * oracle(x_way, kernel)), rel=1e-9)
        assert np.sum(np.asarray(dkernel) * kernel_way) == pytest.approx(np.sum(g * oracle(x, kernel_way)), rel=1e-9)


# --- Pooling


@pytest.mark.parametrize(
    "function",
    [
        lambda x: max_pool(x, 3, 2, ceil=True),
        lambda x: average_pool(x, 3, 2, ceil=True),
        lambda x: adaptive_average_pool(x, (6, 6)),
    ],
    ids=["max", "average", "adaptive"],
)
def test_no_select_and_scatter(function) -> None:
    """https://github.com/google/flax/issues/4233: deterministic GPU programs refuse it, and CPUs are slow at it."""
    program = jax.jit(jax.grad(lambda x: function(x).sum())).lower(jnp.ones((1, 13, 13, 2))).as_text()
    assert "select_and_scatter" not in program


# --- Dropout


def test_dropout_rate_is_what_is_dropped() -> None:
    """https://github.com/ethereon/caffe-tensorflow/issues/110 and https://github.com/karpathy/convnetjs/pull/106."""
    ones = jnp.ones((2, 10_000))
    y = np.asarray(Dropout(0.1).apply({}, ones, train=True, rngs={"dropout": jax.random.key(0)}))
    assert_allclose(np.unique(y), [0, 1 / 0.9], rtol=1e-7)
    assert abs(np.mean(y == 0) - 0.1) < 5 * (0.1 * 0.9 / y.size) ** 0.5
    assert abs(y.mean() - 1) < 0.02
    assert_array_equal(Dropout(0.1).apply({}, ones, train=False), ones)


def test_dropout_keys() -> None:
    """https://github.com/mlcommons/algorithmic-efficiency/issues/664: without a key, an error; one key, one mask."""
    ones, layer = jnp.ones((2, 1000)), Dropout(0.5)
    with pytest.raises(flax.errors.InvalidRngError):
        layer.apply({}, ones, train=True)
    one, again, other = (
        np.asarray(layer.apply({}, ones, train=True, rngs={"dropout": jax.random.key(key)})) for key in (1, 1, 2)
    )
    assert_array_equal(one, again)
    assert 0.4 < np.mean(one == other) < 0.6
    assert 0.4 < np.mean(one[0] == one[1]) < 0.6


def test_dropout_gradient_is_the_mask() -> None:
    mask = jnp.asarray([[True, False, True, False]])
    x = jnp.asarray([[1.0, 2.0, -3.0, 4.0]])
    y, vjp = jax.vjp(lambda v: Dropout(0.75).apply({}, v, train=True, mask=mask), x)
    assert_array_equal(y, [[4, 0, -12, 0]])
    assert_array_equal(vjp(jnp.ones_like(x))[0], [[4, 0, 4, 0]])


def test_dropout_rate_of_the_model_reaches_its_layers() -> None:
    """The flag's value is the share that is zeroed, in both dropout layers."""
    network = AlexNet("single_column", classes=2, dropout_rate=0.1)
    images = jax.ShapeDtypeStruct((1, 67, 67, 3), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), images)
    weights = jax.tree.map(lambda leaf: np.full(leaf.shape, 1e-3, leaf.dtype), weights)
    run = jax.jit(lambda w, x, key: network.apply(w, x, train=True, capture=True, rngs={"dropout": key}))
    _, activations = run(weights, jnp.ones(images.shape, images.dtype), jax.random.key(3))
    for name in ("6", "7"):
        before, after = np.asarray(activations[f"relu{name}"]), np.asarray(activations[f"drop{name}"])
        assert np.all(before > 0)
        kept = after != 0
        assert abs(1 - kept.mean() - 0.1) < 0.025
        assert_allclose(after[kept], before[kept] / 0.9, rtol=1e-6)


# --- The optimizers


def trajectory(
    optimizer: str, rates: list[float], gradient: float, layer: str = "kernel", **settings: Any
) -> list[float]:
    """A weight that starts at 1, after each update with the same gradient, in float64."""
    run = resolve(
        TrainSettings(recipe="torchvision", data="cifar10", optimizer=optimizer, learning_rate=rates[0], **settings)
    )
    params: Any = {"fc6": {layer: jnp.ones((), jnp.float64)}}
    chain = make_optimizer(run, VARIANTS[run.model], params)
    state: Any = chain.init(params)
    values = []
    for rate in rates:
        grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
        updates, state = chain.update(grads, state, params, learning_rate=jnp.asarray(rate, jnp.float64))
        params = jax.tree.map(jnp.add, params, updates)
        values.append(float(params["fc6"][layer]))
    return values


@pytest.mark.parametrize("optimizer", ["sgd", "paper"])
@pytest.mark.parametrize("layer", ["kernel", "bias"])
def test_weight_decay_joins_the_gradient_before_momentum(optimizer: str, layer: str) -> None:
    """https://github.com/pytorch/pytorch/pull/13801 and https://github.com/google-deepmind/optax/issues/308.

    Decay after momentum would give 0.6911 and 0.413189; both updates agree while the rate is constant.
    """
    values = trajectory(optimizer, [0.1] * 3, 1.0, layer, momentum=0.9, weight_decay=0.1)
    assert_allclose(values, [0.89, 0.6821, 0.388169], rtol=1e-12)


def test_biases_keep_clear_of_decay_where_told() -> None:
    """https://github.com/google-deepmind/optax/issues/25: PyTorch decays biases, Caffe doesn't."""
    settings = {"momentum": 0.9, "weight_decay": 0.1, "decay_biases": False}
    assert_allclose(trajectory("sgd", [0.1] * 2, 1.0, "bias", **settings), [0.9, 0.71], rtol=1e-12)
    assert_allclose(trajectory("sgd", [0.1] * 2, 1.0, "kernel", **settings), [0.89, 0.6821], rtol=1e-12)


@pytest.mark.parametrize(("optimizer", "third"), [("sgd", 0.6829), ("paper", 0.529)])
def test_learning_rate_outside_or_inside_the_velocity(optimizer: str, third: float) -> None:
    """https://github.com/pytorch/pytorch/issues/1099: they part when the rate drops."""
    values = trajectory(optimizer, [0.1, 0.1, 0.01], 1.0, momentum=0.9, weight_decay=0.0)
    assert_allclose(values, [0.9, 0.71, third], rtol=1e-12)


def test_adam_adds_eps_outside_the_root_after_correction() -> None:
    """https://github.com/google-deepmind/optax/issues/571: gradients as small as eps take half steps."""
    values = trajectory("adam", [0.1] * 3, 1e-8, weight_decay=0.0)
    assert_allclose(values, [0.95, 0.90, 0.85], rtol=1e-6)


# --- What training starts from


def test_training_starts_from_the_loss_of_chance(rng: np.random.Generator) -> None:
    """https://github.com/soumith/imagenet-multiGPU.torch/issues/70: ln(classes) at first, 6.9078 for a thousand.

    The logits are drawn alike, so that the first ten of a thousand are those of a network with ten classes.
    """
    network = AlexNet("single_column", max(facts.CHANCE_LOSS))
    images = jnp.asarray(rng.uniform(-1, 1, size=(4, 67, 67, 3)), jnp.float32)

    @partial(jax.jit, compiler_options=compiling.LOOPS)  # a loop over millions of numbers
    def run(key: jax.Array) -> Any:
        return network.apply(network.init(key, images), images)

    logits = run(jax.random.key(0, impl="rbg"))  # compiles faster than the default
    for classes, expected in facts.CHANCE_LOSS.items():
        loss = -jax.nn.log_softmax(logits[:, :classes])[jnp.arange(4), jnp.arange(4)].mean()
        assert abs(float(loss) - expected) < 0.02
