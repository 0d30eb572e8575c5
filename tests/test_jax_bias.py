"""A bias's gradient is an exact sum where float32 holds it, whatever the precision of the activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_alexnet.model import AlexNet
from jax_alexnet.ops.bias import add_bias


def test_a_long_sum_in_bfloat16_does_not_stop_growing() -> None:
    ones = jnp.ones((8, 64, 64, 4), jnp.bfloat16)
    bias = jnp.zeros(4, jnp.float32)
    gradient = jax.jit(lambda b: jax.vjp(lambda b: add_bias(jnp.zeros_like(ones), b), b)[1](ones)[0])(bias)
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, 8 * 64 * 64)


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 6, 3), (2, 5, 4, 6, 3)])
def test_gradients_are_sums_over_all_other_axes(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    with jax.enable_x64(True):
        x, bias, g = (jnp.asarray(rng.normal(size=s)) for s in (shape, shape[-1:], shape))
        y, pull_back = jax.vjp(add_bias, x, bias)
        np.testing.assert_array_equal(y, np.asarray(x) + np.asarray(bias))
        to_x, to_bias = pull_back(g)
        np.testing.assert_array_equal(to_x, g)
        np.testing.assert_allclose(to_bias, np.asarray(g).reshape(-1, shape[-1]).sum(0), rtol=1e-14)


def test_unshared_biases_of_local_layers(rng: np.random.Generator) -> None:
    with jax.enable_x64(True):
        g = jnp.asarray(rng.normal(size=(7, 4, 6, 3)))
        bias = jnp.zeros((4, 6, 3))
        np.testing.assert_allclose(jax.vjp(add_bias, g, bias)[1](g)[1], np.asarray(g).sum(0), rtol=1e-14)


def test_the_network_sums_its_biases_gradients_in_float32(rng: np.random.Generator) -> None:
    """conv1 of the 18% net adds up 64 x 32 x 32 terms: bfloat16 alone would lose most of them."""
    images = jnp.asarray(rng.normal(size=(64, 32, 32, 3)), jnp.float32)
    params = AlexNet("cifar_18pct", weight_init="pytorch").init(jax.random.key(0), images[:1])

    def gradient(dtype: jnp.dtype) -> np.ndarray:
        model = AlexNet("cifar_18pct", weight_init="pytorch", dtype=dtype)
        loss = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, images).astype(jnp.float32))))  # type: ignore[union-attr]
        return np.asarray(loss(params)["params"]["conv3"]["bias"])

    exact, half = gradient(jnp.dtype(jnp.float32)), gradient(jnp.dtype(jnp.bfloat16))
    assert np.linalg.norm(half - exact) <= 0.05 * np.linalg.norm(exact)
