"""Operations that are computed otherwise on GPUs: the same numbers as on CPUs, checked here on the CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jax_alexnet import model
from jax_alexnet.ops import convolution, lrn, xla_convolution
from jax_alexnet.ops.cross_entropy import cross_entropy, right_logit
from jax_alexnet.ops.pooled_norm import max_pool_of_norm
from jax_alexnet.ops.relu import relu
from jax_alexnet.variants import VARIANTS


def shifted_norm(x: np.ndarray, window: lrn.Window) -> np.ndarray:
    """The norm along the last axis, one channel after the other, each within its column [P section 3.3]."""
    out = np.empty_like(x)
    width = x.shape[-1] // window.columns
    for i in range(x.shape[-1]):
        first = i // width * width
        seen = x[..., max(first, i - window.before) : min(first + width, i + window.after + 1)]
        out[..., i] = x[..., i] / (window.k + window.scale * np.sum(seen**2, axis=-1)) ** window.beta
    return out


# Narrow, to one side only, and wider than a column.
REACHES = pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 0), (0, 1), (9, 9)])
COLUMNS = pytest.mark.parametrize("columns", [1, 2, 4])


@REACHES
@COLUMNS
def test_norm_for_gpus(rng, before, after, columns):
    x = rng.normal(size=(2, 8)) * 3
    window = lrn.Window((-1,), before, after, 0.3, 0.75, 2.0, columns)
    np.testing.assert_allclose(lrn.value(window, jnp.asarray(x)), shifted_norm(x, window), rtol=1e-14)


@REACHES
@COLUMNS
def test_norm_gradient_for_gpus(rng, before, after, columns):
    x, g = rng.normal(size=(2, 8)) * 3, rng.normal(size=(2, 8))
    window = lrn.Window((-1,), before, after, 0.3, 0.75, 2.0, columns)
    step = 1e-5
    expected = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        sides = []
        for sign in (step, -step):
            moved = x.copy()
            moved[place] += sign
            sides.append(np.sum(g * shifted_norm(moved, window)))
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    found = lrn._gradient_in_few_bytes(window, jnp.asarray(x), jnp.asarray(g))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("columns", [1, 2])
def test_norm_for_gpus_in_bfloat16(rng, columns):
    x = jnp.asarray(rng.normal(size=(64, 48)) * 10, jnp.bfloat16)
    window = lrn.Window((-1,), 2, 2, 0.5, 0.75, 1.0, columns)
    found = lrn.value(window, x)
    assert found.dtype == jnp.bfloat16
    # Computed in float32 and rounded once: half a bfloat16's ulp, 2^-8.
    np.testing.assert_allclose(np.asarray(found, float), shifted_norm(np.asarray(x, float), window), rtol=1.01 * 2**-8)


@pytest.mark.parametrize("columns", [1, 2])
def test_norm_gradient_for_gpus_in_bfloat16(rng, columns):
    # Strong normalisation, where the term that is rounded once more is as large as the other one.
    x, g = (jnp.asarray(rng.normal(size=(64, 48)) * size, jnp.bfloat16) for size in (10, 1))
    window = lrn.Window((-1,), 2, 2, 0.5, 0.75, 1.0, columns)
    settings = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 1.0, "divide_by_size": False, "columns": columns}
    wide_x, wide_g = np.asarray(x, float), np.asarray(g, float)
    exact = oracles.lrn_gradient(wide_x, wide_g, **settings, axis=-1)
    found = lrn._gradient_in_few_bytes(window, x, g)
    assert found.dtype == jnp.bfloat16
    # Half an ulp, 2^-8, of the result and of each of the five terms. Their factors 2 a b x_i x_j / s_j are at most 2 b
    # for the channel itself and b for its neighbours, since s_j holds a x_i^2 and a x_j^2: 6 b = 4.5 in all.
    reach = np.max(np.abs(wide_g * oracles.lrn(wide_x, **settings, axis=-1) / wide_x))
    np.testing.assert_allclose(np.asarray(found, float), exact, rtol=1.01 * 2**-8, atol=4.5 * 2**-8 * reach)


def test_columns_together_or_apart(rng):
    """The same sums in the same order; and what is no number in one column stays out of the other."""
    x = rng.normal(size=(3, 4, 4, 12))
    x[0, 0, 0, 6], x[1, 2, 2, 5] = np.nan, np.inf
    window = lrn.Window((-1,), 2, 1, 0.3, 0.75, 2.0, 2)
    together, apart = lrn.value(window, jnp.asarray(x)), lrn._columns_apart(lrn.value, window, jnp.asarray(x))
    np.testing.assert_array_equal(together, apart)
    assert np.isnan(together[0, 0, 0]).tolist() == [False] * 6 + [True, True, True, False, False, False]


def channels_first(x):
    return np.moveaxis(np.asarray(x, float), -1, 1)


def channels_last(x):
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("columns", [1, 2])
def test_norm_and_pool_in_one_pass(rng, columns, ceil):
    """Negative values too, which what lies beyond the map must never beat; and ties, of which the first counts."""
    x = rng.integers(-9, 3, (2, 6, 8, 8)) * 0.5
    window = lrn.Window((-1,), 2, 1, 0.3, 0.75, 2.0, columns)
    normalized = channels_first(shifted_norm(x, window))
    values = oracles.max_pool(normalized, 3, 2, ceil=ceil)
    found, back = jax.vjp(lambda x: max_pool_of_norm(x, window, 3, 2, ceil=ceil), jnp.asarray(x))
    np.testing.assert_allclose(channels_first(found), values, rtol=1e-14)
    g = rng.normal(size=found.shape)
    to_maps = channels_last(oracles.max_pool_gradient(normalized, channels_first(g), 3, 2, ceil=ceil))
    expected = jax.vjp(lambda x: lrn.value(window, x), jnp.asarray(x))[1](jnp.asarray(to_maps))[0]
    np.testing.assert_allclose(back(jnp.asarray(g))[0], expected, rtol=1e-12, atol=1e-14)


def test_norm_and_pool_in_one_pass_in_bfloat16(rng):
    """Rounded before the largest is looked for, as where the normalised maps lie in memory."""
    x = jnp.asarray(rng.normal(size=(2, 7, 7, 8)) * 10, jnp.bfloat16)
    window = lrn.Window((-1,), 2, 2, 0.5, 0.75, 1.0)
    expected = oracles.max_pool(channels_first(lrn.value(window, x)), 3, 2)
    np.testing.assert_array_equal(channels_first(max_pool_of_norm(x, window, 3, 2)), expected)


def test_norms_and_pools_that_are_joined():
    def joined(name):
        return [
            tuple(row.name for row in rows) for rows in model._joined(VARIANTS[name].layers) if isinstance(rows, tuple)
        ]

    assert joined("single_column") == joined("caffe_alexnet") == [("lrn1", "pool1"), ("lrn2", "pool2")]
    assert joined("caffenet") == joined("cifar_18pct") == []  # they pool first


def test_relu_and_its_gradient():
    """The gradient is 0 at both zeros, and NaN is not stopped [PyTorch's threshold_backward]."""
    x, g = jnp.asarray([-2.0, -0.0, 0.0, 3.0, np.nan, np.inf, -np.inf]), jnp.arange(1.0, 8.0)
    values, back = jax.vjp(relu, x)
    np.testing.assert_array_equal(values, [0, 0, 0, 3, np.nan, np.inf, 0])
    np.testing.assert_array_equal(back(g)[0], [0, 0, 0, 4, 5, 6, 0])
    np.testing.assert_array_equal(jax.jvp(relu, (x,), (g,))[1], [0, 0, 0, 4, 5, 6, 0])


# Groups alone, as the networks have them; an image with the large steps of a first layer, of which the last window ends
# before, at and beyond the last pixel; and both.
GEOMETRIES = [
    *(convolution.Geometry(3, stride, ((1, 2), (1, 2)), 2, "auto") for stride in (1, 2)),
    *(
        convolution.Geometry(11, 4, edges, 1, "auto")
        for edges in (((0, 0), (0, 0)), ((2, 2), (2, 2)), ((0, 3), (0, 5)))
    ),
    convolution.Geometry(5, 3, ((0, 0), (1, 1)), 2, "auto"),
    convolution.Geometry(3, 1, ((1, 1), (1, 1)), 4, "auto"),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolutions_on_gpus_and_on_cpus(rng, dtype, geometry):
    """Small integers, so that every order of summation is exact."""
    channels = 3 * geometry.groups if geometry.window > 3 else 64
    sides = (19, 22) if geometry.window > 3 else (7, 7)
    x = jnp.asarray(rng.integers(-4, 5, (2, *sides, channels)), dtype)
    kernel = jnp.asarray(rng.integers(-1, 2, (*(geometry.window,) * 2, channels // geometry.groups, 4)), dtype)
    out = xla_convolution.plain(geometry, x, kernel)
    gradient = jnp.asarray(rng.integers(-1, 2, out.shape), dtype)
    on_gpus = xla_convolution._for_cudnn
    ways = (
        (partial(xla_convolution._maps_of, on_gpus, geometry, sides=sides), (kernel, gradient)),
        (partial(xla_convolution._kernels_of, on_gpus, geometry), (x, gradient)),
        (partial(on_gpus, geometry), (x, kernel)),
    )
    plain = (
        partial(xla_convolution.plain_maps, geometry, sides),
        partial(xla_convolution.plain_kernels, geometry),
        lambda *_: out,
    )
    for form, (found_on_gpus, others), obvious in zip(convolution._forms(geometry, sides), ways, plain, strict=True):
        expected = obvious(*others)
        for found in (form.cpu(*others), form.default(*others), found_on_gpus(*others)):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(np.asarray(found, float), np.asarray(expected, float))


def test_cross_entropy(rng):
    logits, labels = rng.normal(size=(4, 5)) * 4, np.array([0, 4, 2, 2])
    shifted = np.exp(logits)
    softmax = shifted / shifted.sum(1, keepdims=True)
    expected = -np.log(softmax[np.arange(4), labels])
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-12)
    gradient = jax.grad(lambda z: cross_entropy(z, jnp.asarray(labels)).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, softmax - np.eye(5)[labels], atol=1e-15)


def test_a_label_that_is_no_class_is_not_a_number():
    logits = jnp.asarray([[1.0, -np.inf], [1.0, 2.0], [1.0, 2.0]])
    assert np.isnan(right_logit(logits, jnp.asarray([0, 2, -1]))).tolist() == [False, True, True]
    assert right_logit(logits, jnp.asarray([0, 0, 1]))[2] == 2.0
