"""Winograd's filtering on CPUs: exact matrices, the direct convolution's values, zeros where it has zeros."""

import functools
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jax_alexnet.ops import convolution
from jax_alexnet.ops.cpu import minimal_filters, winograd


def of_platform(x, kernel, padding, cpu: convolution.CpuForm = "winograd", groups=1):
    return convolution.conv(x, kernel, stride=1, padding=padding, groups=groups, cpu=cpu)


def direct(x: np.ndarray, kernel: np.ndarray, padding: int) -> np.ndarray:
    """In float64, channels last; the oracle has channels first."""
    features = kernel.shape[3]
    out = oracles.conv(
        np.moveaxis(x.astype(float), -1, 1), kernel.astype(float).transpose(3, 2, 0, 1), np.zeros(features),
        stride=1, padding=padding,
    )  # fmt: skip
    return np.moveaxis(out, 1, -1)


def uses_filtering(function, *arguments) -> bool:
    """Whether the compiled program has nothing left that is called a convolution, XLA's or oneDNN's."""
    return "convolution" not in str(jax.jit(function).lower(*arguments).as_text())


def test_the_matrices_of_a_window_of_three():
    # Lavin and Gray, section 4.1, up to the sign that rows of B' and G share.
    half = Fraction(1, 2)
    found = minimal_filters.filtering(3)
    signs = [np.sign(row[np.nonzero(row)[0][0]]) for row in np.array(found.inputs, float)]
    assert [[v * int(s) for v in row] for row, s in zip(found.inputs, signs, strict=True)][:1] == [[1, 0, -1, 0]]
    assert {tuple(map(abs, row)) for row in found.inputs} == {(1, 0, 1, 0), (0, 1, 1, 0), (0, 1, 0, 1)}
    assert {tuple(map(abs, row)) for row in found.kernel} == {(1, 0, 0), (half, half, half), (0, 0, 1)}
    assert tuple(map(tuple, found.outputs)) == ((1, 1, 1, 0), (0, 1, -1, 1))


@pytest.mark.parametrize("window", minimal_filters.WINDOWS)
def test_the_matrices_filter_exactly(window, rng):
    matrices = minimal_filters.filtering(window)
    for _ in range(20):
        pixels, kernel = rng.integers(-99, 100, window + 1).tolist(), rng.integers(-99, 100, window).tolist()
        expected = [sum(pixels[i + j] * kernel[j] for j in range(window)) for i in range(2)]

        def times(matrix, values):
            return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]

        both = [a * b for a, b in zip(times(matrices.kernel, kernel), times(matrices.inputs, pixels), strict=True)]
        assert times(matrices.outputs, both) == expected


class Case(NamedTuple):
    """A convolution of small integers, and its values and gradients as float64 sums."""

    x: np.ndarray
    kernel: np.ndarray
    gradient: np.ndarray
    out: np.ndarray
    to_x: np.ndarray
    to_kernel: np.ndarray


@functools.cache
def case(window: int, padding: int, side: int) -> Case:
    rng, channels, features = np.random.default_rng(2012), 96, 104
    x = rng.integers(-8, 9, (5, side, side, channels)).astype(np.float32)
    kernel = (rng.integers(-8, 9, (window, window, channels, features)) / 64).astype(np.float32)
    out = direct(x, kernel, padding)
    gradient = rng.integers(-8, 9, out.shape).astype(np.float32)
    flipped = np.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    padded = np.pad(x.astype(float), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    height, width = gradient.shape[1:3]
    to_kernel = np.zeros(kernel.shape)
    for i, j in np.ndindex(window, window):
        pixels = padded[:, i : i + height, j : j + width]
        to_kernel[i, j] = np.tensordot(pixels, gradient.astype(float), ((0, 1, 2), (0, 1, 2)))
    return Case(x, kernel, gradient, out, direct(gradient, flipped, window - 1 - padding), to_kernel)


@pytest.mark.parametrize("block_bytes", [1e3, 80e6])
@pytest.mark.parametrize(("window", "padding", "side"), [(3, 1, 13), (3, 0, 6), (5, 2, 9), (5, 2, 8)])
def test_values_and_gradients(window, padding, side, block_bytes, monkeypatch):
    """Of five images at once and one by one, against float64 sums and the kernel's exact gradient."""
    monkeypatch.setattr(winograd, "BLOCK_BYTES", block_bytes)
    x, kernel, gradient, *_ = wanted = case(window, padding, side)
    channels, features = kernel.shape[2:]

    def function(x, kernel):
        return of_platform(x, kernel, padding)

    @jax.jit  # one program: operation by operation it takes seconds
    def both_ways(x, kernel, gradient):
        out, pull = jax.vjp(function, x, kernel)
        return out, *pull(gradient)

    assert uses_filtering(function, x, kernel)
    out, to_x, to_kernel = both_ways(x, kernel, gradient)
    # 16 or 36 products, each of 32 channels, with the largest weights of the three steps: some hundred ulp of a term.
    terms = np.abs(x).max() * np.abs(kernel).max() * channels * window**2
    np.testing.assert_allclose(out, wanted.out, rtol=0, atol=4 * 2.0**-24 * terms)
    np.testing.assert_allclose(to_x, wanted.to_x, rtol=0, atol=4 * 2.0**-24 * terms * features / channels)
    # Small integers: the direct sum is exact in float32.
    np.testing.assert_array_equal(to_kernel, wanted.to_kernel)


def test_a_window_of_zeros_gives_zero(rng):
    x = rng.normal(size=(4, 11, 11, 96)).astype(np.float32)
    x[:, 3:9, 3:9] = 0
    kernel = rng.normal(size=(5, 5, 96, 96)).astype(np.float32)
    out, pull = jax.vjp(lambda x: of_platform(x, jnp.asarray(kernel), 2), jnp.asarray(x))
    touched = direct(np.abs(x).sum(-1, keepdims=True), np.ones((5, 5, 1, 1)), 2) > 0
    assert 0 < touched.sum() < touched.size
    np.testing.assert_array_equal(np.asarray(out != 0).any(-1, keepdims=True), touched)
    (to_x,) = pull(jnp.asarray(x))  # the same zeros, seen from the other side
    np.testing.assert_array_equal(np.asarray(to_x != 0).any(-1, keepdims=True), touched)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_groups_and_precisions(dtype, rng):
    """bfloat16 arguments are exact in float32, in which tiles are made: only the result is rounded."""
    x = jnp.asarray(rng.normal(size=(4, 9, 9, 192)), dtype)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 96, 192)) / 29, dtype)
    assert uses_filtering(lambda x, kernel: of_platform(x, kernel, 1, groups=2), x, kernel)
    found = np.asarray(of_platform(x, kernel, 1, groups=2), float)
    wide_x, wide_kernel = np.asarray(x, float), np.asarray(kernel, float)
    parts = zip(np.split(wide_x, 2, -1), np.split(wide_kernel, 2, -1), strict=True)
    expected = np.concatenate([direct(*part, 1) for part in parts], -1)
    unit = {"float32": 0.0, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_allclose(found, expected, rtol=unit, atol=2e-5)


@pytest.mark.parametrize(
    ("images", "window", "side", "channels", "dtype", "cpu"),
    [(3, 3, 6, 96, "float32", "auto"), (4, 3, 6, 64, "float32", "auto"), (4, 1, 6, 96, "float32", "auto"),
     (4, 3, 3, 96, "float32", "auto"), (4, 3, 6, 96, "float64", "auto"), (4, 3, 6, 96, "float32", "xla")],
)  # fmt: skip
def test_where_another_sum_stays(images, window, side, channels, dtype, cpu):
    x, kernel = jnp.ones((images, side, side, channels), dtype), jnp.ones((window, window, channels, 96), dtype)
    assert not uses_filtering(lambda x, kernel: of_platform(x, kernel, window // 2, cpu=cpu), x, kernel)


def test_products_spared():
    # Lavin and Gray: 16 of 36 where tiles fit. 13 pixels need 7 tiles a side, 3 need 2.
    assert winograd.spared(3, ((1, 1), (1, 1)), (14, 14)) == pytest.approx(1 - 16 / 36)
    assert winograd.spared(3, ((1, 1), (1, 1)), (13, 13)) == pytest.approx(1 - (7 * 4) ** 2 / (13 * 3) ** 2)
    assert winograd.spared(3, ((1, 1), (1, 1)), (3, 3)) == pytest.approx(1 - 64 / 81)
