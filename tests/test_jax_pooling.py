"""Pooling in JAX against loops: every ceil and floor size, ties, clipped areas, and all gradients."""

import itertools

import facts
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_io.errors import UserError
from jax_alexnet.ops.pooling import adaptive_average_pool, average_pool, max_pool

EPS32 = float(jnp.finfo(jnp.float32).eps)
EPS64 = float(jnp.finfo(jnp.float64).eps)
SEARCH = hypothesis.settings(max_examples=10, deadline=None)


def nchw(x) -> np.ndarray:
    return np.moveaxis(np.asarray(x, np.float64), -1, 1)


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def value_and_gradient(function, x: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """function(x), a random cotangent g of its shape, and the gradient of sum(g * function(x))."""
    shape = jax.eval_shape(function, x).shape
    g = np.random.default_rng(seed).normal(size=shape).astype(x.dtype)

    @jax.jit
    def both(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, vjp = jax.vjp(function, x)
        return y, vjp(g)[0]

    y, dx = both(jnp.asarray(x), jnp.asarray(g))
    assert y.dtype == dx.dtype == x.dtype
    return np.asarray(y), g, np.asarray(dx)


def assert_max_pool_is_right(x: np.ndarray, window: int, stride: int, ceil: bool) -> None:
    y, g, dx = value_and_gradient(lambda v: max_pool(v, window, stride, ceil=ceil), x)
    assert_array_equal(nchw(y), oracles.max_pool(nchw(x), window, stride, ceil=ceil))
    expected = oracles.max_pool_gradient(nchw(x), nchw(g), window, stride, ceil=ceil)
    assert_allclose(nchw(dx), expected, rtol=8 * np.finfo(x.dtype).eps, atol=16 * np.finfo(x.dtype).eps)
    # The forward pass alone, which takes another way than the one that is differentiated.
    assert_array_equal(jax.jit(lambda v: max_pool(v, window, stride, ceil=ceil))(x), y)


@st.composite
def pools(draw):
    """(shape, window, stride, ceil, seed) with maps at least one window wide, not square."""
    window, stride = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    height, width = (draw(st.integers(window, window + 7)) for _ in range(2))
    shape = (draw(st.integers(1, 2)), height, width, draw(st.integers(1, 2)))
    return shape, window, stride, draw(st.booleans()), draw(st.integers(0, 2**32 - 1))


# --- Max


@SEARCH
@hypothesis.given(pools(), st.sampled_from(["normal", "negative", "relu", "few values"]))
def test_max_pool_matches_the_oracle(problem, kind: str) -> None:
    """Ties decide the gradient only: ReLU's zeros and a few repeated values have many."""
    shape, window, stride, ceil, seed = problem
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if kind == "negative":
        x = -np.abs(x) - 1
    elif kind == "relu":
        x = np.maximum(x - 0.5, 0)
    elif kind == "few values":
        x = rng.integers(-2, 1, size=shape).astype(float)
    assert_max_pool_is_right(x, window, stride, ceil)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize("size", [(13, 13), (24, 16), (7, 12)])
def test_max_pool_as_the_networks_use_it(
    size: tuple[int, int], ceil: bool, dtype: type, rng: np.random.Generator
) -> None:
    """3x3 windows two apart, on what follows ReLU: about half zeros."""
    assert_max_pool_is_right(np.maximum(rng.normal(size=(2, *size, 3)), 0).astype(dtype), 3, 2, ceil)


def test_ties_send_the_gradient_to_the_first() -> None:
    """All zeros: windows start at 0 and 2, and so do their gradients, never shared between the ties."""
    x = jnp.zeros((1, 5, 5, 1))
    y, vjp = jax.vjp(lambda v: max_pool(v, 3, 2), x)
    (dx,) = vjp(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]).reshape(y.shape))
    expected = np.zeros((5, 5))
    expected[0, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 1, 2, 3, 4
    assert_array_equal(dx[0, :, :, 0], expected)


def test_overlapping_windows_add_up() -> None:
    """One largest value in all four windows gets all four gradients."""
    x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
    y, vjp = jax.vjp(lambda v: max_pool(v, 3, 2), x)
    (dx,) = vjp(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]).reshape(y.shape))
    assert_array_equal(dx[0, :, :, 0], np.where(np.asarray(x[0, :, :, 0]) > 0, 10, 0))


def test_ceil_mode_pads_with_nothing() -> None:
    """https://github.com/pytorch/pytorch/issues/41294: an overhang of zeros would win over negatives."""
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    assert_array_equal(max_pool(x, 3, 2, ceil=True)[0, :, :, 0], [[-1, -3], [-9, -11]])


def test_minus_infinity_everywhere_keeps_the_gradient_inside() -> None:
    """A window of nothing but -inf looks like the overhang's padding; its first pixel still gets the gradient."""
    y, g, dx = value_and_gradient(lambda v: max_pool(v, 3, 2, ceil=True), np.full((1, 4, 4, 1), -np.inf))
    assert np.all(y == -np.inf)
    assert_allclose(dx.sum(), g.sum(), rtol=8 * EPS64)


def test_nan_is_passed_on() -> None:
    x = jnp.ones((1, 5, 5, 1)).at[0, 0, 1, 0].set(jnp.nan)
    expected = [[True, False], [False, False]]
    assert_array_equal(np.isnan(max_pool(x, 3, 2))[0, :, :, 0], expected)
    y, _ = jax.vjp(lambda v: max_pool(v, 3, 2), x)
    assert_array_equal(np.isnan(y)[0, :, :, 0], expected)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_max_pool_in_half_precision_is_exact(dtype: jnp.dtype, rng: np.random.Generator) -> None:
    x = jnp.asarray(rng.normal(size=(1, 6, 7, 2)), dtype)
    y = max_pool(x, 3, 2, ceil=True)
    assert y.dtype == dtype
    assert_array_equal(nchw(y), oracles.max_pool(nchw(x), 3, 2, ceil=True))


def test_windows_of_more_than_256_pixels() -> None:
    """Whose last position no byte can hold."""
    last = jnp.zeros((1, 17, 17, 1)).at[0, 16, 16, 0].set(1.0)
    assert_array_equal(jax.jit(jax.grad(lambda v: max_pool(v, 17, 1).sum()))(last), last)


# --- Sizes


@pytest.mark.parametrize("pool", [max_pool, average_pool])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
def test_output_sizes(pool, ceil: bool) -> None:
    """Every map of up to fifteen pixels that holds a window, shapes alone."""
    for n, window, stride in itertools.product(range(1, 16), range(1, 5), range(1, 5)):
        if n >= window:
            image = jax.ShapeDtypeStruct((1, n, n + 1, 1), jnp.float32)
            y = jax.eval_shape(lambda v, w=window, s=stride: pool(v, w, s, ceil=ceil), image)
            expected = tuple(oracles.pool_size(side, window, stride, ceil=ceil) for side in (n, n + 1))
            assert y.shape[1:3] == expected, (n, window, stride)


@pytest.mark.parametrize(
    ("n", "window", "stride", "count"),
    [(6, 1, 2, 3), (56, 3, 2, 28), (54, 3, 2, 27), (55, 3, 2, 27), (32, 3, 2, 16), (24, 3, 2, 12), (7, 2, 3, 3)],
)
def test_ceil_sizes_by_hand(n: int, window: int, stride: int, count: int) -> None:
    """https://github.com/torch/nn/issues/116 and https://github.com/pytorch/pytorch/issues/45357."""
    image = jax.ShapeDtypeStruct((1, n, n, 1), jnp.float32)
    y = jax.eval_shape(lambda v: max_pool(v, window, stride, ceil=True), image)
    assert y.shape == (1, count, count, 1)


@pytest.mark.parametrize(("image", "widths"), facts.CIFAR_POOL_TRACES.items())
def test_cifar_pools_in_a_row(image: int, widths: tuple[int, ...]) -> None:
    for pool in (max_pool, average_pool):
        x = jax.ShapeDtypeStruct((1, image, image, 1), jnp.float32)
        for width in widths:
            x = jax.eval_shape(lambda v, pool=pool: pool(v, 3, 2, ceil=True), x)
            assert x.shape == (1, width, width, 1)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_a_map_without_room_for_a_window_is_refused(pool) -> None:
    with pytest.raises(UserError, match=r"3x3.*2x5"):
        pool(jnp.ones((1, 2, 5, 1)), 3, 2)


# --- Average


@SEARCH
@hypothesis.given(pools())
def test_average_pool_matches_the_oracle(problem) -> None:
    """It is linear, so its gradient is known from the pool of each unit map."""
    shape, window, stride, ceil, seed = problem
    x = np.random.default_rng(seed).normal(size=shape)
    y, g, dx = value_and_gradient(lambda v: average_pool(v, window, stride, ceil=ceil), x)
    assert_allclose(nchw(y), oracles.avg_pool(nchw(x), window, stride, ceil=ceil), rtol=1e-12, atol=1e-14)
    expected = oracles.finite_differences(
        lambda v: oracles.avg_pool(v, window, stride, ceil=ceil), np.zeros_like(nchw(x)), nchw(g), step=1.0
    )
    assert_allclose(nchw(dx), expected, rtol=1e-12, atol=1e-14)


def test_average_pool_divides_by_the_clipped_area() -> None:
    """https://github.com/google/flax/pull/2451: 4.75, 15.25 and 12 if the overhang counted."""
    y = average_pool(jnp.arange(49.0).reshape(1, 7, 7, 1), 2, 3, ceil=True)
    assert_array_equal(y[0, :, :, 0], [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]])


def test_average_pool_of_ones_is_ones() -> None:
    """Also where the last windows overhang by one row and one column, or by neither."""
    for ceil in (False, True):
        assert_array_equal(average_pool(jnp.ones((1, 8, 5, 1)), 3, 2, ceil=ceil), 1.0)


# --- Adaptive


@pytest.mark.parametrize("n", range(1, 16))
def test_adaptive_pool_of_every_size(n: int, rng: np.random.Generator) -> None:
    """From n to every size up to fifteen, along rows and, the other way round, along columns."""
    x = rng.normal(size=(1, n, 1, 2))
    sizes = range(1, 16)
    ys = jax.jit(lambda v: [adaptive_average_pool(v, (size, 1)) for size in sizes])(x)
    across = jax.jit(lambda v: adaptive_average_pool(v.swapaxes(1, 2), (1, 16 - n)).swapaxes(1, 2))(x)
    for size, y in zip((*sizes, 16 - n), (*ys, across), strict=True):
        assert_allclose(nchw(y), oracles.adaptive_avg_pool(nchw(x), (size, 1)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("before", "after"),
    [((5, 5), (6, 6)), ((6, 6), (6, 6)), ((7, 4), (3, 6)), ((1, 1), (6, 6)), ((13, 2), (6, 5))],
)
def test_adaptive_pool_gradient(before: tuple[int, int], after: tuple[int, int], rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, *before, 2))
    _, g, dx = value_and_gradient(lambda v: adaptive_average_pool(v, after), x)
    expected = oracles.finite_differences(
        lambda v: oracles.adaptive_avg_pool(v, after), np.zeros_like(nchw(x)), nchw(g), step=1.0
    )
    assert_allclose(nchw(dx), expected, rtol=1e-12, atol=1e-14)


def test_adaptive_pool_by_hand() -> None:
    y = adaptive_average_pool(jnp.arange(10.0).reshape(1, 2, 5, 1), (1, 3))  # columns 0-1, 1-3, 3-4
    assert_allclose(y.ravel(), [3.0, 4.5, 6.0], rtol=4 * EPS64)


def test_an_infinity_stays_in_its_adaptive_windows() -> None:
    """As in PyTorch; a product with a matrix of averages would make everything NaN."""
    y = adaptive_average_pool(jnp.ones((1, 5, 4, 1)).at[0, 0, 1, 0].set(jnp.inf), (3, 2))
    assert_array_equal(y[0, :, :, 0], [[np.inf, 1], [1, 1], [1, 1]])


def test_adaptive_pool_to_its_own_size_changes_nothing(rng: np.random.Generator) -> None:
    """Bit for bit, in float32 and bfloat16: 224-pixel images pass through torchvision's pool unchanged."""
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.asarray(rng.normal(size=(2, 6, 6, 4)), dtype)
        y = adaptive_average_pool(x, (6, 6))
        assert y.dtype == dtype
        assert_array_equal(np.asarray(y, np.float32), np.asarray(x, np.float32))


def test_adaptive_pool_in_float32_is_precise(rng: np.random.Generator) -> None:
    """Within the roundings of a mean of at most nine terms; a reduced-precision matrix product would show."""
    x = np.abs(rng.normal(size=(1, 13, 9, 2))).astype(np.float32)
    y = adaptive_average_pool(jnp.asarray(x), (6, 4))
    assert y.dtype == jnp.float32
    assert_allclose(nchw(y), oracles.adaptive_avg_pool(nchw(x), (6, 4)), rtol=12 * EPS32)
