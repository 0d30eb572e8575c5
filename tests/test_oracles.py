"""The oracles against hand-checked values, and the figures against their own arithmetic.

An oracle that is wrong would bless the same mistake in an implementation, so none is trusted unchecked.
"""

import facts
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

# --- The figures


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_layer_figures_add_up_to_the_totals(model: str) -> None:
    network = facts.NETWORKS[model]
    assert sum(layer.parameters for layer in network.layers.values()) == network.parameters
    assert sum(layer.macs for layer in network.layers.values()) == network.macs
    if network.units is not None:
        weighted = [layer.output for layer in network.layers.values() if layer.parameters]
        assert sum(int(np.prod(shape)) for shape in weighted) == network.units


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_layer_figures_follow_from_the_shapes(model: str) -> None:
    """Recompute parameters and MACs of every weighted layer from its neighbours' shapes and kernel size."""
    kernels = {"conv1": 11, "conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3, "local3": 3, "local4": 3}
    if model.startswith("cifar"):
        kernels |= {"conv1": 5, "conv2": 5, "conv3": 5}
    two_columns = model in ("two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet")
    size = facts.NETWORKS[model].image_size
    before: tuple[int, ...] = (3, size, size)
    for name, layer in facts.NETWORKS[model].layers.items():
        after = layer.output
        if name.startswith(("conv", "local")):
            fan_in = before[0] * kernels[name] ** 2
            if two_columns and name in ("conv2", "conv4", "conv5"):
                fan_in //= 2
            area = after[1] * after[2]
            biases = after[0] * (area if name.startswith("local") else 1)
            weights = after[0] * fan_in * (area if name.startswith("local") else 1)
            assert (layer.parameters, layer.macs) == (weights + biases, fan_in * after[0] * area), name
        elif name.startswith("fc"):
            weights = int(np.prod(before)) * after[0]
            assert (layer.parameters, layer.macs) == (weights + after[0], weights), name
        before = after


@pytest.mark.parametrize(("key", "widths"), facts.MAP_TRACES.items())
def test_pool_size_traces_the_maps(key: tuple[int, int, bool], widths: tuple[int, ...]) -> None:
    image, padding, ceil = key
    trace = [oracles.pool_size(image, 11, 4, padding)]
    for _ in range(3):
        trace.append(oracles.pool_size(trace[-1], 3, 2, ceil=ceil))
    assert tuple(trace) == widths


@pytest.mark.parametrize(("image", "widths"), facts.CIFAR_POOL_TRACES.items())
def test_pool_size_traces_the_cifar_maps(image: int, widths: tuple[int, ...]) -> None:
    trace = [image]
    for _ in widths:
        trace.append(oracles.pool_size(trace[-1], 3, 2, ceil=True))
    assert tuple(trace[1:]) == widths


# --- Response normalisation


@pytest.mark.parametrize("case", facts.LRN_CASES, ids=lambda case: case.name)
def test_lrn_check_values(case: facts.LrnCase) -> None:
    y = oracles.lrn(np.reshape(case.x, (1, -1, 1, 1)), **case.settings._asdict()).ravel()
    assert_allclose(y, case.y, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize(
    ("i", "size", "even", "columns", "window"),
    [
        (3, 5, "left", 1, [1, 2, 3, 4, 5]),
        (0, 5, "left", 1, [0, 1, 2]),
        (7, 5, "left", 1, [5, 6, 7]),
        (3, 2, "left", 1, [2, 3]),
        (3, 2, "right", 1, [3, 4]),
        (3, 4, "left", 1, [1, 2, 3, 4]),
        (3, 4, "right", 1, [2, 3, 4, 5]),
        (3, 5, "left", 2, [1, 2, 3]),
        (4, 5, "left", 2, [4, 5, 6]),
        (5, 99, "left", 2, [4, 5, 6, 7]),
        (0, 1, "right", 1, [0]),
    ],
)
def test_lrn_windows_of_eight_channels(i: int, size: int, even: str, columns: int, window: list[int]) -> None:
    assert list(oracles.lrn_window(i, 8, size, even, columns)) == window


def test_lrn_columns_are_separate_normalisations(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 12, 1, 2))
    own = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    parts = [oracles.lrn(part, **own) for part in np.split(x, 3, axis=1)]
    assert_array_equal(oracles.lrn(x, columns=3, **own), np.concatenate(parts, axis=1))


@pytest.mark.parametrize("even", ["left", "right"])
@pytest.mark.parametrize(("size", "columns"), [(1, 1), (2, 1), (4, 2), (5, 1), (5, 2), (11, 1)])
def test_lrn_gradient_is_the_derivative(rng: np.random.Generator, size: int, columns: int, even: str) -> None:
    own: dict = {"size": size, "alpha": 1.3, "beta": 0.75, "k": 0.7, "even": even, "columns": columns}
    x, g = rng.normal(size=(2, 2, 6, 1, 2))
    exact = oracles.lrn_gradient(x, g, **own)
    assert_allclose(exact, oracles.finite_differences(lambda v: oracles.lrn(v, **own), x, g), atol=1e-8)
    bound = oracles.lrn_gradient(x, g, **own, magnitudes=True)
    assert np.all(bound >= np.abs(exact))


def test_lrn_of_the_order_of_layers() -> None:
    """https://github.com/BVLC/caffe/issues/296: CaffeNet pools before it normalises, the paper after."""
    pixels = np.array([[4.0, 1.0], [3.0, 9.0]]).T.reshape(1, 2, 1, 2)
    own = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0}
    lrn_then_pool = oracles.lrn(pixels, **own).max(axis=(2, 3))
    pool_then_lrn = oracles.lrn(pixels.max(axis=(2, 3), keepdims=True), **own).ravel()
    assert_allclose(lrn_then_pool.ravel(), [1.1291839, 0.9516341], atol=6e-8)
    assert_allclose(pool_then_lrn, [0.4020219, 0.9045492], atol=6e-8)
    signed = np.reshape([-3.0, 1.0], (1, 2, 1, 1))
    assert_allclose(oracles.lrn(np.maximum(signed, 0), **own).ravel(), [0, 0.5535833], atol=6e-8)
    assert_allclose(np.maximum(oracles.lrn(signed, **own), 0).ravel(), [0, 0.3535534], atol=6e-8)


def test_spatial_response_norm_by_hand() -> None:
    """3x3 pixels 1..9, base 1, power 1, alpha 9 so that alpha / 9 is one: the sums are small integers."""
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    y = oracles.spatial_response_norm(x, size=3, alpha=9.0, beta=1.0, k=1.0)
    sums = [[46, 91, 74], [159, 285, 219], [154, 271, 206]]
    assert_allclose(y[0, 0], np.arange(1.0, 10.0).reshape(3, 3) / (1 + np.array(sums)), rtol=1e-15)


# --- Pooling


@pytest.mark.parametrize(
    ("n", "window", "stride", "padding", "ceil", "count"),
    [
        (5, 2, 2, 1, True, 3),  # https://github.com/torch/nn/issues/116: a window may not start in padding
        (5, 2, 2, 1, False, 3),
        (6, 1, 2, 0, True, 3),  # https://github.com/pytorch/pytorch/issues/45357
        (6, 2, 2, 0, True, 3),
        (7, 2, 3, 0, True, 3),
        (7, 2, 3, 0, False, 2),
        (4, 3, 2, 0, True, 2),
        (3, 3, 2, 0, True, 1),
        (2, 3, 2, 0, True, 1),
        (1, 2, 2, 0, True, 1),
    ],
)
def test_pool_sizes(n: int, window: int, stride: int, padding: int, ceil: bool, count: int) -> None:
    assert oracles.pool_size(n, window, stride, padding, ceil) == count


def test_max_pool_of_negatives_pads_with_nothing() -> None:
    """https://github.com/pytorch/pytorch/issues/41294, in one row."""
    x = np.reshape([-1.0, -2.0, -3.0], (1, 1, 1, 3))
    assert_array_equal(oracles.max_pool(x, 3, 1, padding=1).ravel(), [-1, -1, -2])


def test_max_pool_clips_its_last_windows() -> None:
    x = -np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    assert_array_equal(oracles.max_pool(x, 3, 2)[0, 0], [[-1]])
    assert_array_equal(oracles.max_pool(x, 3, 2, ceil=True)[0, 0], [[-1, -3], [-9, -11]])


def test_max_pool_gradient_goes_to_the_first_maximum() -> None:
    """All zeros, as after ReLU: overlapping 3x3/2 windows start at 0 and 2, and so does their gradient."""
    g = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    dx = oracles.max_pool_gradient(np.zeros((1, 1, 5, 5)), g, 3, 2)[0, 0]
    expected = np.zeros((5, 5))
    expected[0, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 1, 2, 3, 4
    assert_array_equal(dx, expected)
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1.0  # in all four windows
    assert oracles.max_pool_gradient(x, g, 3, 2)[0, 0, 2, 2] == 10
    x[0, 0, 0, 1] = 1.0  # ties with the centre in the first window, and comes first
    dx = oracles.max_pool_gradient(x, g, 3, 2)[0, 0]
    assert (dx[0, 1], dx[2, 2]) == (1, 9)


def test_max_pool_gradient_is_the_derivative(rng: np.random.Generator) -> None:
    x = rng.permutation(2 * 7 * 6).reshape(2, 1, 7, 6) / 7.0  # no ties
    g = rng.normal(size=(2, 1, 3, 3))
    numeric = oracles.finite_differences(lambda v: oracles.max_pool(v, 3, 2, ceil=True), x, g)
    assert_allclose(oracles.max_pool_gradient(x, g, 3, 2, ceil=True), numeric, atol=1e-8)


def test_avg_pool_divides_by_what_it_says() -> None:
    """https://github.com/apple/coremltools/pull/2844 and https://github.com/google/flax/issues/2401."""
    x = np.reshape([1.0, 2.0, 3.0, 4.0], (1, 1, 2, 2))
    counted = oracles.avg_pool(x, 2, 1, padding=(0, 1), count_padding=True)
    assert_array_equal(counted.ravel(), [2.5, 1.5, 1.75, 1.0])
    assert_array_equal(oracles.avg_pool(x, 2, 1, padding=(0, 1)).ravel(), [2.5, 3, 3.5, 4])
    overhang = oracles.avg_pool(np.arange(49.0).reshape(1, 1, 7, 7), 2, 3, ceil=True)
    assert_array_equal(overhang[0, 0], [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]])


def test_adaptive_bins_by_hand() -> None:
    assert oracles.adaptive_bins(5, 6) == [
        range(1),
        range(2),
        range(1, 3),
        range(2, 4),
        range(3, 5),
        range(4, 5),
    ]
    assert oracles.adaptive_bins(7, 3) == [range(3), range(2, 5), range(4, 7)]
    assert oracles.adaptive_bins(6, 6) == [range(i, i + 1) for i in range(6)]
    assert oracles.adaptive_bins(1, 3) == [range(1)] * 3


def test_adaptive_avg_pool_by_hand() -> None:
    x = np.arange(10.0).reshape(1, 1, 2, 5)
    y = oracles.adaptive_avg_pool(x, (1, 3))  # columns 0-1, 1-3, 3-4
    assert_array_equal(y.ravel(), [3.0, 4.5, 6.0])


# --- Convolution


def test_conv_is_a_cross_correlation() -> None:
    """https://github.com/huggingface/transformers/pull/11883: 4321, and 4231 with the kernel transposed."""
    x = np.reshape([1.0, 10.0, 100.0, 1000.0], (1, 1, 2, 2))
    kernel = np.reshape([1.0, 2.0, 3.0, 4.0], (1, 1, 2, 2))
    assert oracles.conv(x, kernel).item() == 4321
    assert oracles.conv(x, kernel.swapaxes(2, 3), [0.5]).item() == 4231.5


def test_conv_groups_are_blocks() -> None:
    """https://github.com/tensorflow/tensorflow/issues/45751: a group's outputs see its own inputs alone."""
    x = np.reshape([1.0, 10.0, 100.0, 1000.0], (1, 4, 1, 1))
    kernel = np.reshape([1.0, 2.0, 3.0, 4.0], (2, 2, 1, 1))
    assert_array_equal(oracles.conv(x, kernel, groups=2).ravel(), [21, 4300])


def test_conv_pads_with_zeros_and_reaches_over_in_ceil_mode() -> None:
    x = np.arange(1.0, 5.0).reshape(1, 1, 1, 4)
    x = np.concatenate([x, 10 * x], axis=2)
    ones = np.ones((1, 1, 3, 3))
    assert_array_equal(oracles.conv(x, ones, padding=1)[0, 0], [[33, 66, 99, 77], [33, 66, 99, 77]])
    ceil = oracles.conv(np.arange(1.0, 17.0).reshape(1, 1, 4, 4), ones, stride=2, ceil=True)
    assert_array_equal(ceil[0, 0], [[54, 45], [72, 54]])


def test_local_conv_has_its_own_weights_everywhere() -> None:
    x = np.reshape([1.0, 10.0, 100.0], (1, 1, 1, 3))
    kernel = np.zeros((1, 3, 1, 1, 3, 3))
    kernel[0, :, 0, 0, 1] = [[9, 1, 2], [3, 4, 5], [6, 7, 9]]
    bias = np.reshape([0.1, 0.2, 0.3], (1, 3, 1))
    y = oracles.local_conv(x, kernel, bias, padding=1)
    assert_allclose(y.ravel(), [1 + 20 + 0.1, 3 + 40 + 500 + 0.2, 60 + 700 + 0.3], rtol=1e-15)


def test_local_conv_with_equal_weights_is_a_convolution(rng: np.random.Generator) -> None:
    x, kernel, bias = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    shared = oracles.conv(x, kernel, bias, padding=1)
    unshared = oracles.local_conv(
        x, np.broadcast_to(kernel, (5, 4, 4, 3, 3, 3)), np.broadcast_to(bias, (5, 4, 4)), padding=1
    )
    assert_allclose(unshared, shared, rtol=1e-13)


def test_finite_differences_of_a_polynomial() -> None:
    x, g = np.array([-2.0, 0.5, 3.0]), np.array([1.0, 10.0, -1.0])
    assert_allclose(oracles.finite_differences(lambda v: v**3, x, g), g * 3 * x**2, rtol=1e-8)
