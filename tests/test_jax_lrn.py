"""Response normalisation in JAX against published values and the float64 oracle, forward and backward."""

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
from jax_alexnet.ops.lrn import local_response_norm, spatial_response_norm

EPS32 = float(jnp.finfo(jnp.float32).eps)
EPS64 = float(jnp.finfo(jnp.float64).eps)
# Compiling each new shape takes most of the time: few examples, and no deadline.
SEARCH = hypothesis.settings(max_examples=10, deadline=None)
OWN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}


def roundings(settings: dict, channels: int) -> float:
    """Relative error of any order of summing a window, in units of eps: the power multiplies it by beta."""
    terms = min(settings["size"], channels // settings.get("columns", 1))
    return max(1.0, settings.get("beta", 0.75)) * (terms + 4)


def value_and_gradient(function, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """function(x) and the gradient of sum(g * function(x)) in the dtype of `x`, compiled as one."""

    @jax.jit
    def both(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, vjp = jax.vjp(function, x)
        return y, vjp(g)[0]

    y, dx = both(jnp.asarray(x), jnp.asarray(g, x.dtype))
    return np.asarray(y), np.asarray(dx)


def forward(x, dtype: jnp.dtype = jnp.float64, **settings) -> np.ndarray:
    """`local_response_norm` in `dtype`, compiled."""
    y = jax.jit(lambda v: local_response_norm(v, **settings))(jnp.asarray(x, dtype))
    assert y.dtype == dtype
    return np.asarray(y)


def lrn(x: np.ndarray, g: np.ndarray, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of `local_response_norm`."""
    return value_and_gradient(lambda v: local_response_norm(v, **settings), x, g)


# --- Check values


@pytest.mark.parametrize("case", facts.LRN_CASES, ids=lambda case: case.name)
def test_check_values_in_float64(case: facts.LrnCase) -> None:
    y = forward(case.x, **case.settings._asdict())
    assert_allclose(y, case.y, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("case", facts.LRN_CASES, ids=lambda case: case.name)
def test_check_values_in_float32(case: facts.LrnCase) -> None:
    settings = case.settings._asdict()
    y = forward(case.x, jnp.float32, **settings)
    assert_allclose(y, case.y, rtol=roundings(settings, len(case.x)) * EPS32, atol=case.atol)


def test_defaults_are_pytorchs() -> None:
    """torch.nn.LocalResponseNorm(2): alpha 1e-4, beta 0.75, k 1, divided by the size, looking left."""
    case = next(case for case in facts.LRN_CASES if case.name.startswith("size 2 in PyTorch and"))
    assert_allclose(local_response_norm(jnp.asarray(case.x, jnp.float64), size=2), case.y, rtol=case.rtol)


# --- Every setting against the oracle


@st.composite
def problems(draw):
    """(settings, shape, seed): windows narrower and wider than the channels, one to three columns."""
    columns = draw(st.integers(1, 3))
    channels = columns * draw(st.integers(1, 7))
    settings = {
        "size": draw(st.integers(1, 9)),
        "alpha": draw(st.sampled_from([1e-4, 0.3, 1.0, 5.0])),
        "beta": draw(st.sampled_from([0.75, 0.5, 1.0, 0.6, 2.0])),
        "k": draw(st.sampled_from([0.5, 1.0, 2.0])),
        "divide_by_size": draw(st.booleans()),
        "even": draw(st.sampled_from(["left", "right"])),
        "columns": columns,
    }
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)), channels)
    return settings, shape, draw(st.integers(0, 2**32 - 1))


def even_windows(size: int, even: str, columns: int = 1):
    """A problem whose windows reach further to one side: the gradient's must reach further to the other."""
    common = {"alpha": 1.0, "beta": 0.75, "k": 1.0, "divide_by_size": True}
    return {"size": size, **common, "even": even, "columns": columns}, (1, 1, 2, 6 * columns), 0


@SEARCH
@hypothesis.given(problems())
@hypothesis.example(even_windows(2, "left"))
@hypothesis.example(even_windows(4, "right"))
@hypothesis.example(even_windows(4, "left", columns=2))
def test_any_settings_match_the_oracle(problem) -> None:
    """Value, gradient by the formula, and gradient by finite differences, which know no formula.

    The gradient's bound is of its terms' sizes, since they may cancel.
    """
    settings, shape, seed = problem
    tolerance = roundings(settings, shape[-1]) * EPS64
    x, g = np.random.default_rng(seed).normal(scale=2.0, size=(2, *shape))
    y, dx = lrn(x, g, **settings)
    assert_allclose(y, oracles.lrn(x, **settings, axis=-1), rtol=tolerance)
    expected = oracles.lrn_gradient(x, g, **settings, axis=-1)
    bound = oracles.lrn_gradient(x, g, **settings, axis=-1, magnitudes=True)
    assert np.all(np.abs(dx - expected) <= 4 * tolerance * bound)
    numeric = oracles.finite_differences(lambda v: oracles.lrn(v, **settings, axis=-1), x, g)
    assert_allclose(dx, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", facts.LRN_SETTINGS)
def test_network_settings_at_the_networks_widths(model: str, rng: np.random.Generator) -> None:
    """Large activations, since alpha 1e-4 barely moves small ones."""
    settings = facts.LRN_SETTINGS[model]._asdict()
    channels = facts.NETWORKS[model].layers["lrn1"].output[0]
    x, g = rng.normal(scale=100.0, size=(2, 1, 2, 1, channels))
    y, dx = lrn(x, g, **settings)
    assert_allclose(y, oracles.lrn(x, **settings, axis=-1), rtol=16 * EPS64)
    y32 = forward(x, jnp.float32, **settings)
    assert_allclose(y32, oracles.lrn(np.float32(x), **settings, axis=-1), rtol=16 * EPS32)
    bound = oracles.lrn_gradient(x, g, **settings, axis=-1, magnitudes=True)
    exact = oracles.lrn_gradient(x, g, **settings, axis=-1)
    assert np.all(np.abs(dx - exact) <= 16 * EPS64 * bound)


def test_columns_do_not_touch(rng: np.random.Generator) -> None:
    """A change in one column leaves the other's values and gradients as they are, bit for bit."""
    x, g = rng.normal(scale=10.0, size=(2, 1, 2, 2, 8))
    changed = x.copy()
    changed[..., 3] += 100.0
    settings = {**OWN, "columns": 2}
    y, z = (forward(v, **settings) for v in (x, changed))
    assert_array_equal(y[..., 4:], z[..., 4:])
    assert np.all(y[..., :4][..., 1:3] != z[..., :4][..., 1:3])
    other = g.copy()
    other[..., :4] = 0.0
    assert not np.any(lrn(x, other, **settings)[1][..., :4])
    _, spanning = lrn(x, other, **{**OWN, "columns": 1})
    assert np.all(spanning[..., 2:4])
    assert not np.any(spanning[..., :2])


def test_images_and_positions_are_apart(rng: np.random.Generator) -> None:
    """https://github.com/FluxML/Flux.jl/pull/720: the norm runs over channels, the last axis, and no other."""
    x = rng.normal(size=(3, 4, 5, 6))
    y = forward(x, size=5, alpha=1.0)
    pixel = forward(x[1, 2, 3], size=5, alpha=1.0)
    assert_array_equal(y[1, 2, 3], pixel)


@pytest.mark.parametrize("even", ["left", "right"])
@pytest.mark.parametrize("size", [2 * 4 + 1, 20, 1001])
def test_window_wider_than_the_channels_sums_them_all(size: int, even: str, rng: np.random.Generator) -> None:
    x, g = rng.normal(size=(2, 2, 1, 1, 4))
    settings = {"size": size, "alpha": 2.0, "beta": 0.75, "k": 1.0, "divide_by_size": False, "even": even}
    denominator = 1 + 2.0 * np.sum(x**2, axis=-1, keepdims=True)
    y, dx = lrn(x, g, **settings)
    assert_allclose(y, x / denominator**0.75, rtol=16 * EPS64)
    assert_allclose(dx, oracles.lrn_gradient(x, g, **settings, axis=-1), rtol=1e-12)


# --- Range and precision


@pytest.mark.parametrize("alpha", [1e-4, 1.0])
@pytest.mark.parametrize("size", [2, 5, 9])
def test_large_and_small_values_side_by_side(size: int, alpha: float, rng: np.random.Generator) -> None:
    """1e-8 to 1e5 in one window in float32: a running sum would lose the small behind the large."""
    x = (10.0 ** rng.uniform(-8, 5, size=(4, 3, 3, 24)) * rng.choice([-1, 1], size=(4, 3, 3, 24))).astype(np.float32)
    x[0, 0, 0] = np.tile([1e5, 1e-8, 1e-8, 1e-8, 1e-8, 3e-8, 1e5, -1e-8], 3)
    g = rng.normal(size=x.shape).astype(np.float32)
    settings = {"size": size, "alpha": alpha, "beta": 0.75, "k": 1.0}
    y, dx = lrn(x, g, **settings)
    assert_allclose(y, oracles.lrn(x, **settings, axis=-1), rtol=16 * EPS32)
    expected = oracles.lrn_gradient(x, g, **settings, axis=-1)
    bound = oracles.lrn_gradient(x, g, **settings, axis=-1, magnitudes=True)
    assert np.all(np.abs(dx - expected) <= 64 * EPS32 * bound)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_of_300(dtype: jnp.dtype) -> None:
    """https://github.com/NVIDIA/caffe/issues/135: 300^2 overflows float16; 110.2259 is right."""
    x = np.full((1, 1, 1, 1), 300.0, dtype)
    y, dx = lrn(x, np.ones_like(x), **OWN)
    assert y.dtype == dx.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    assert abs(float(y.item()) - 110.2259) <= 110.2259 * eps
    exact = oracles.lrn_gradient([[300.0]], [[1.0]], **OWN)
    assert float(dx.item()) == pytest.approx(exact.item(), rel=4 * eps)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_off_by_one_rounding(dtype: jnp.dtype, rng: np.random.Generator) -> None:
    x = jnp.asarray(rng.normal(scale=100.0, size=(2, 3, 3, 16)), dtype)
    settings = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0}
    exact = oracles.lrn(np.asarray(x, np.float64), **settings, axis=-1)
    y = forward(x, dtype, **settings)
    assert_allclose(y.astype(np.float64), exact, rtol=0.51 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(
    "settings",
    [OWN, {"size": 11, "alpha": 1.0, "beta": 0.5, "k": 1.0, "divide_by_size": False}, {"size": 2}],
    ids=["paper", "TensorFlow", "notebook"],
)
def test_huge_values_are_no_nan(settings: dict) -> None:
    """https://github.com/tensorflow/tensorflow/issues/46996: squares beyond the range, also in the gradient."""
    for dtype, huge in ((np.float32, 1e38), (np.float16, 3e4)):
        x = np.array([-2 * huge, 1, huge, 1, 1, 1, 1], dtype)
        y, dx = lrn(x, np.ones_like(x), **settings)
        assert np.all(np.isfinite(y))
        assert np.all(np.isfinite(dx))
        if dtype is np.float32:
            assert np.all(np.abs(y) <= 1)


def test_huge_values_spare_channels_beyond_the_window() -> None:
    """The paper's window of five around the last two channels doesn't reach the huge third one."""
    y = local_response_norm(jnp.asarray([-2e38, 1, 1e38, 1, 1, 1, 1], jnp.float32), **OWN)
    expected = np.array([1 / (2 + 4 * 2e-5) ** 0.75, 1 / (2 + 3 * 2e-5) ** 0.75])
    assert_allclose(y[5:], expected, rtol=16 * EPS32)
    assert_allclose(y[:5], np.zeros(5), atol=1e-15)


def test_a_nan_stays_in_its_windows() -> None:
    x = jnp.ones(9).at[4].set(jnp.nan)
    assert_array_equal(np.isnan(local_response_norm(x, size=3)), [False] * 3 + [True] * 3 + [False] * 3)


# --- What is refused


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"size": 0}, "0"),
        ({"size": -2}, "-2"),
        ({"size": 3, "even": "up"}, "up"),
        ({"size": 3, "columns": 4}, "columns is 4"),
        ({"size": 3, "columns": 0}, "columns is 0"),
    ],
)
def test_bad_settings_are_named(settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        local_response_norm(jnp.ones((1, 1, 1, 6)), **settings)


# --- The same-map norm


@st.composite
def maps(draw):
    settings = {
        "size": draw(st.integers(1, 6)),
        "alpha": draw(st.sampled_from([5e-5, 1e-3, 1.0, 9.0])),
        "beta": draw(st.sampled_from([0.75, 1.0])),
        "k": draw(st.sampled_from([1.0, 2.0])),
    }
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 2)))
    return settings, shape, draw(st.integers(0, 2**32 - 1))


@SEARCH
@hypothesis.given(maps())
def test_same_map_norm_matches_the_oracle(problem) -> None:
    settings, shape, seed = problem
    x, g = np.random.default_rng(seed).normal(scale=2.0, size=(2, *shape))

    def oracle(v: np.ndarray) -> np.ndarray:
        return np.moveaxis(oracles.spatial_response_norm(np.moveaxis(v, -1, 1), **settings), 1, -1)

    y, dx = value_and_gradient(lambda v: spatial_response_norm(v, **settings), x, g)
    assert_allclose(y, oracle(x), rtol=64 * EPS64)
    assert_allclose(dx, oracles.finite_differences(oracle, x, g), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", facts.SPATIAL_NORM_SETTINGS)
def test_same_map_norm_with_the_networks_settings(model: str, rng: np.random.Generator) -> None:
    settings = facts.SPATIAL_NORM_SETTINGS[model]._asdict()
    x = rng.normal(scale=100.0, size=(1, 7, 6, 2))
    expected = np.moveaxis(oracles.spatial_response_norm(np.moveaxis(x, -1, 1), **settings), 1, -1)
    compiled = jax.jit(lambda v: spatial_response_norm(v, **settings))
    assert_allclose(compiled(x), expected, rtol=64 * EPS64)
    assert_allclose(compiled(np.float32(x)), expected, rtol=32 * EPS32)
