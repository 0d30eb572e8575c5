"""Updates of the main framework's optimizers against numbers computed by hand in float64."""

from typing import Any

import facts
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import variants as v
from jax_alexnet.optim import make_optimizer
from jax_alexnet.recipes import choose_variant, resolve


def settings_of(model: str = "cifar_18pct", **words: Any) -> CompleteSettings:
    return resolve(TrainSettings(model=model, **words))


def trajectory(settings: CompleteSettings, gradients: list[float], rates: list[float]) -> dict[str, list[float]]:
    """Kernel and bias of a layer `fc1` after each step, both from 1 and with the same gradients."""
    params: Any = {"fc1": {"kernel": np.ones((1, 1)), "bias": np.ones(1)}}
    optimizer = make_optimizer(settings, choose_variant(settings), params)
    state, found = optimizer.init(params), {"kernel": [], "bias": []}
    for gradient, rate in zip(gradients, rates, strict=True):
        grads = jax.tree.map(lambda leaf, value=gradient: np.full_like(leaf, value), params)
        updates, state = optimizer.update(grads, state, params, learning_rate=jnp.float64(rate))
        params = jax.device_get(optax.apply_updates(params, updates))
        for kind, values in found.items():
            values.append(params["fc1"][kind].item())
    return found


def plain(optimizer: str, **words: Any) -> CompleteSettings:
    """Nothing but the optimizer, unless it is asked for."""
    nothing = {"momentum": 0.0, "weight_decay": 0.0, "bias_learning_rate_factor": 1.0, "decay_biases": True}
    return settings_of(recipe="paper", optimizer=optimizer, **{**nothing, **words})


@pytest.mark.parametrize("optimizer", ["sgd", "paper"])
def test_decay_joins_the_gradient_before_the_momentum(optimizer):
    """https://github.com/pytorch/pytorch/pull/13801: at a constant rate both conventions agree."""
    found = trajectory(plain(optimizer, momentum=0.9, weight_decay=0.1), [1, 1, 1], [0.1] * 3)
    assert_allclose(found["kernel"], [0.89, 0.6821, 0.388169], rtol=1e-14)
    assert_allclose(found["bias"], found["kernel"], rtol=1e-14)


def test_rate_inside_the_velocity_or_outside():
    """https://github.com/pytorch/pytorch/issues/1099: they part when the rate changes."""
    rates = [0.1, 0.1, 0.01]
    assert_allclose(trajectory(plain("sgd", momentum=0.9), [1] * 3, rates)["kernel"], [0.9, 0.71, 0.6829], rtol=1e-14)
    assert_allclose(trajectory(plain("paper", momentum=0.9), [1] * 3, rates)["kernel"], [0.9, 0.71, 0.529], rtol=1e-14)


def test_adam():
    """Epsilon is added after the bias correction and the root: https://github.com/google-deepmind/optax/issues/571."""
    found = trajectory(plain("adam"), [1e-8] * 3, [0.1] * 3)
    assert_allclose(found["kernel"], [0.95, 0.9, 0.85], rtol=1e-6)
    # By hand: moments of 0.9 and 0.999, corrected by 1 - 0.9^t and 1 - 0.999^t; decay joins the gradient.
    weight, mean, square, expected = 1.0, 0.0, 0.0, []
    for t, gradient in enumerate((1.0, -2.0, 0.5), start=1):
        whole = gradient + 0.1 * weight
        mean, square = 0.9 * mean + 0.1 * whole, 0.999 * square + 0.001 * whole**2
        weight -= 0.1 * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)) ** 0.5 + 1e-8)
        expected.append(weight)
    assert_allclose(trajectory(plain("adam", weight_decay=0.1), [1.0, -2.0, 0.5], [0.1] * 3)["kernel"], expected)


@pytest.mark.parametrize("optimizer", ["sgd", "paper", "adam"])
def test_biases_at_twice_the_rate_and_without_decay(optimizer):
    words = {"bias_learning_rate_factor": 2.0, "decay_biases": False, "weight_decay": 0.5}
    found = trajectory(plain(optimizer, **words), [0.0, 1.0], [0.1, 0.01])
    assert found["kernel"][0] < 1
    assert found["bias"][0] == 1  # neither a gradient nor decay
    alone = trajectory(plain(optimizer), [0.0, 1.0], [0.1, 0.01])
    assert_allclose(1 - found["bias"][1], 2 * (1 - alone["bias"][1]), rtol=1e-9)
    assert alone["bias"][1] < 1


@pytest.mark.parametrize("optimizer", ["sgd", "paper"])
def test_a_bias_decays_where_the_recipe_says_so(optimizer):
    found = trajectory(plain(optimizer, weight_decay=0.5), [0.0], [0.1])
    assert_allclose([found["kernel"][0], found["bias"][0]], [0.95, 0.95], rtol=1e-14)


def test_the_papers_update(rng):
    """v <- 0.9 v - 0.0005 e w - e g; w <- w + v (section 5), across a drop, for every layer's kernel and bias."""
    settings = settings_of("two_column", recipe="paper", schedule="constant")
    params: Any = {"fc6": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}}
    optimizer = make_optimizer(settings, v.TWO_COLUMN, params)
    state: Any = optimizer.init(params)
    assert jax.tree.map(np.shape, state.velocity) == jax.tree.map(np.shape, params)
    weight, velocity = params, jax.tree.map(np.zeros_like, params)
    for rate in (0.01, 0.01, 0.001, 0.001):
        grads: Any = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        updates, state = optimizer.update(grads, state, params, learning_rate=jnp.float64(rate))
        params = optax.apply_updates(params, updates)
        velocity = jax.tree.map(lambda old, w, g, e=rate: 0.9 * old - 0.0005 * e * w - e * g, velocity, weight, grads)
        weight = jax.tree.map(np.add, weight, velocity)
        for found, wanted in ((params, weight), (state.velocity, velocity)):
            jax.tree.map(lambda one, other: assert_allclose(one, other, rtol=1e-12, atol=1e-16), found, wanted)


def rates_and_decays(settings: CompleteSettings, layers: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """What multiplies the rate and what decays, of each weight, read from an update at a rate of 1."""
    params: Any = {layer: {"kernel": np.ones(1), "bias": np.ones(1)} for layer in layers}
    optimizer = make_optimizer(settings, choose_variant(settings), params)

    def moved(gradient: float) -> Any:
        grads = jax.tree.map(lambda leaf: np.full_like(leaf, gradient), params)
        updates, _ = optimizer.update(grads, optimizer.init(params), params, learning_rate=jnp.float64(1.0))
        return updates

    still, pushed = moved(0.0), moved(1.0)
    found = {}
    for layer in layers:
        for kind in ("kernel", "bias"):
            factor = float(still[layer][kind][0] - pushed[layer][kind][0])
            found[f"{layer} {kind}"] = (factor, -float(still[layer][kind][0]) / factor)
    return found


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar_rates_and_decays_by_layer(model):
    expected = facts.CIFAR_RECIPES[model]
    settings = settings_of(model, recipe="cifar")
    found = rates_and_decays(settings, tuple(expected.weight_decay))
    for layer, decay in expected.weight_decay.items():
        assert found.pop(f"{layer} kernel") == pytest.approx((1.0, decay), rel=1e-6)
        # cuda-convnet decays weights only.
        assert found.pop(f"{layer} bias") == pytest.approx((expected.bias_rate, 0.0), rel=1e-6)
    assert not found


@pytest.mark.parametrize("name", [name for name in facts.RECIPES if name != "blog"])  # Adam hides rates and decays
def test_rates_and_decays_of_all_layers_alike(name):
    """Also of a network whose own recipe decays by layer."""
    expected = facts.RECIPES[name]
    for model in ("two_column", "cifar_18pct"):
        settings = settings_of(model, recipe=name, data="synthetic")
        for key, found in rates_and_decays(settings, ("conv1", "fc10")).items():
            is_bias = key.endswith("bias")
            decay = expected.weight_decay if expected.biases_decay or not is_bias else 0.0
            assert found == pytest.approx((expected.bias_rate if is_bias else 1.0, decay), rel=1e-6)


def test_updates_keep_the_dtype_of_the_weights():
    """A rate in float64 must not make a float32 run float64."""
    for optimizer in ("sgd", "paper", "adam"):
        params: Any = {"fc1": {"kernel": np.ones(1, np.float32), "bias": np.ones(1, np.float32)}}
        settings = plain(optimizer, momentum=0.9, weight_decay=0.1)
        built = make_optimizer(settings, choose_variant(settings), params)
        updates, state = built.update(params, built.init(params), params, learning_rate=jnp.float64(0.1))
        leaves = jax.tree.leaves((updates, state))
        assert {leaf.dtype for leaf in leaves if leaf.ndim} == {np.dtype(np.float32)}
