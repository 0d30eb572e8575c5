"""The nnx module beside the Linen module that it wraps, which parity compares with PyTorch's reference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_alexnet import AlexNet
from jax_alexnet import layer_specs as specs
from jax_alexnet.nnx import AlexNet as NnxAlexNet

NAME, SIDE = "cifar_18pct", 16
DROPPING = specs.Variant(
    "dropping", "", 6, 7, "paper",
    (specs.Dense("fc1", 108), specs.Relu("relu1"), specs.Dropout("drop2", 0.5), specs.Dense("fc2", None)),
)  # fmt: skip


@pytest.fixture
def images(rng: np.random.Generator) -> jax.Array:
    return jnp.asarray(rng.standard_normal((3, SIDE, SIDE, 3)), jnp.float32)


def _params(network: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


def test_its_logits_and_gradients_are_those_of_the_linen_module(images: jax.Array) -> None:
    network = NnxAlexNet(NAME, 5, rngs=nnx.Rngs(0), image_size=SIDE, weight_init="pytorch")
    params, linen = _params(network), AlexNet(NAME, classes=5)
    assert params.keys() == {"conv1", "conv2", "conv3", "fc10"}
    assert np.array_equal(jax.jit(lambda x: network(x))(images), jax.jit(linen.apply)({"params": params}, images))
    ours = nnx.grad(lambda net: jnp.sum(net(images) ** 2))(network)
    theirs = jax.grad(lambda params: jnp.sum(linen.apply({"params": params}, images) ** 2))(params)  # type: ignore[operator]
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(ours), theirs)


def test_it_begins_with_given_weights(images: jax.Array) -> None:
    given = AlexNet(NAME, classes=5, weight_init="pytorch").init(jax.random.key(4), images)["params"]
    network = NnxAlexNet(NAME, 5, rngs=nnx.Rngs(0), image_size=SIDE, params=given)
    jax.tree.map(np.testing.assert_array_equal, _params(network), given)


def test_dropout_draws_from_its_own_stream() -> None:
    network = NnxAlexNet(DROPPING, rngs=nnx.Rngs(0), weight_init="pytorch")
    images = jnp.ones((4, 6, 6, 3))
    first, second = network(images, train=True), network(images, train=True)
    assert not np.array_equal(first, second)
    assert np.array_equal(network(images), network(images))
