"""Operations that are computed otherwise on GPUs: the same numbers as on CPUs, checked here on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_alexnet.ops import convolution, lrn
from jax_alexnet.ops.cross_entropy import cross_entropy, right_logit


def shifted_norm(x: np.ndarray, before: int, after: int, scale: float, k: float) -> np.ndarray:
    """The norm along the last axis, one channel after the other [P section 3.3]."""
    out = np.empty_like(x)
    for i in range(x.shape[-1]):
        window = x[..., max(0, i - before) : i + after + 1]
        out[..., i] = x[..., i] / (k + scale * np.sum(window**2, axis=-1)) ** 0.75
    return out


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 0), (0, 1), (9, 9)])
def test_norm_gradient_for_gpus(rng, before, after):
    x, g = rng.normal(size=(2, 7)) * 3, rng.normal(size=(2, 7))
    window = lrn._Window((-1,), before, after, 0.3, 0.75, 2.0)
    step = 1e-5
    expected = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        sides = []
        for sign in (step, -step):
            moved = x.copy()
            moved[place] += sign
            sides.append(np.sum(g * shifted_norm(moved, before, after, 0.3, 2.0)))
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    found = lrn._gradient_in_few_bytes(window, jnp.asarray(x), jnp.asarray(g))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_norm_gradient_for_gpus_in_bfloat16(rng):
    # Strong normalisation, where the term that is rounded once more is as large as the other one.
    x, g = (jnp.asarray(rng.normal(size=(64, 48)) * size, jnp.bfloat16) for size in (10, 1))
    window = lrn._Window((-1,), 2, 2, 0.5, 0.75, 1.0)
    exact = lrn._gradient(window, x.astype(jnp.float64), g.astype(jnp.float64))
    found = lrn._gradient_in_few_bytes(window, x, g)
    assert found.dtype == jnp.bfloat16
    # Half an ulp, 2^-9, of the result, and of each of the five terms: their factors 2 a b x_i x_j / s_j add up to
    # at most 2 b sqrt(5 / 4) < 2.
    scale = lrn._power(lrn._base(window, x.astype(jnp.float64)), -0.75)
    reach = np.max(np.abs(np.asarray(g, float) * np.asarray(scale)))
    np.testing.assert_allclose(np.asarray(found, float), exact, rtol=2**-8, atol=2 * 2**-9 * 5 * reach)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_groups_together_or_one_by_one(rng, dtype):
    x = jnp.asarray(rng.integers(-4, 5, (2, 7, 7, 6)), dtype)
    kernel = jnp.asarray(rng.integers(-2, 3, (3, 3, 3, 4)), dtype)
    geometry = convolution._Geometry(2, ((1, 2), (1, 2)), 2, fast=False)
    results = []
    for form in (convolution._together, convolution._one_by_one):
        out, pull = jax.vjp(lambda x, kernel, form=form: form(geometry, x, kernel), x, kernel)
        results.append((out, *pull(jnp.ones_like(out))))
    for together, apart in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(together, float), np.asarray(apart, float))  # small integers: exact


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
