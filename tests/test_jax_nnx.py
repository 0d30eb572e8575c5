"""The nnx module beside the Linen module that it wraps, and beside PyTorch's reference by the harness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import parity
from jax_alexnet import AlexNet
from jax_alexnet import layer_specs as specs
from jax_alexnet.nnx import AlexNet as NnxAlexNet
from parity.alexnet import pairs

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


def test_the_harness_finds_it_equal_to_the_reference_forward_and_backward() -> None:
    """In float64, as a function of its parameters: outputs, and the gradient of each parameter and of the images."""
    pair = pairs.build(NAME, classes=5, image_size=SIDE)
    wide: Any = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    params = pair.variables["params"]
    network = NnxAlexNet(NAME, 5, rngs=nnx.Rngs(0), image_size=SIDE, params=params, **wide)
    graph, state, rest = nnx.split(network, nnx.Param, ...)

    def logits(params: Any, images: jax.Array, factor: float = 1.0) -> jax.Array:
        """Of parameters whose last layer takes PyTorch's order of what is flattened: channel, row, column."""
        rows = params["fc10"]["kernel"].reshape(64, 2, 2, 5).transpose(1, 2, 0, 3).reshape(256, 5)
        nnx.replace_by_pure_dict(state, params | {"fc10": params["fc10"] | {"kernel": rows}})
        return nnx.merge(graph, state, rest)(images) * factor

    images, ours = pairs.images(pair, 2), _params(network)
    rows = ours["fc10"]["kernel"].reshape(2, 2, 64, 5).transpose(2, 0, 1, 3).reshape(256, 5)
    ours["fc10"] = ours["fc10"] | {"kernel": rows}
    report = parity.compare(logits, pair.torch_module, images, variables=ours)
    assert report.equal, report
    names = {row.name for row in report.rows}
    assert all(any(f"{layer}/{leaf}" in name for name in names) for layer in ours for leaf in ours[layer]), names

    def wrong(params: Any, images: jax.Array) -> jax.Array:
        return logits(params, images, 1 + 1e-9)

    assert not parity.compare(wrong, pair.torch_module, images, variables=ours).equal
