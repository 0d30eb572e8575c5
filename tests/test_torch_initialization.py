"""How the PyTorch reference's weights start, against the figures."""

import math

import facts
import pytest
import torch
from numpy.testing import assert_allclose

from alexnet_io.errors import UserError
from torch_ref.alexnet import build
from torch_ref.initialization import SCHEMES, fan_in, initialize
from torch_ref.layers import LocalConv2d

SIX_SIGMA = 6  # a wrong law is far outside, a right one is never seen there
# The smallest images, so that fc6 and fc10 stay small.
SMALL = {
    "two_column": 36,
    "cuda_convnet_2012": 36,
    "caffe_alexnet": 39,
    "caffenet": 39,
    "one_weird_trick_lrn": 36,
    "cifar_18pct": 16,
    "cifar_13pct": 12,
    "cifar_11pct": 12,
    "cifar_80sec": 12,
}


def assert_normal(weight: torch.Tensor, std: float, name: str) -> None:
    """Mean, deviation and tail of draws from N(0, std^2)."""
    n = weight.numel()
    values = weight.detach().double() / std
    assert abs(values.mean().item()) < SIX_SIGMA / math.sqrt(n), name
    assert abs(values.std().item() - 1) < SIX_SIGMA / math.sqrt(2 * n), name
    beyond = math.erfc(1 / math.sqrt(2))
    assert abs((values.abs() > 1).double().mean().item() - beyond) < SIX_SIGMA / math.sqrt(n), name


def assert_uniform(parameter: torch.Tensor, bound: float, name: str) -> None:
    n = parameter.numel()
    values = parameter.detach().double()
    assert values.abs().max().item() <= bound * (1 + 1e-6), name
    # The variance of the sample variance of a uniform law: (1/5 - 1/9) bound^4 / n.
    variance = bound**2 / 3
    spread = math.sqrt((1 / 5 - 1 / 9) / n) * bound**2
    assert abs(values.square().mean().item() - variance) < SIX_SIGMA * spread, name
    assert abs(values.mean().item()) < SIX_SIGMA * bound / math.sqrt(3 * n), name


@pytest.mark.parametrize("model", facts.INITIALISATION)
def test_variants_start_as_their_sources_say(model: str) -> None:
    network = build(model, image_size=SMALL[model], classes=100)
    initialize(network, seed=1)
    weighted = {name: layer for name, layer in network.named_children() if list(layer.parameters())}
    assert list(weighted) == list(facts.INITIALISATION[model])
    for name, (std, bias) in facts.INITIALISATION[model].items():
        state = weighted[name].state_dict()
        assert_normal(state["weight"], std, name)
        assert torch.equal(state["bias"], torch.full_like(state["bias"], bias)), name


@pytest.mark.parametrize("scheme", ["variant", "pytorch"])
def test_pytorchs_law(scheme: str) -> None:
    """https://github.com/n2cholas/jax-resnet/issues/3: uniform, biases as well, not Flax's normal and zeros."""
    network = build("single_column", classes=100)
    initialize(network, scheme)
    layers = dict(network.named_children())
    for name in ("conv1", "fc6"):
        weight, bias = layers[name].weight, layers[name].bias
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        std, bound = facts.DEFAULT_STD[fan_in(weight)]
        assert_allclose(bound, 1 / math.sqrt(fan_in(weight)), rtol=1e-5)
        assert_allclose(std, bound / math.sqrt(3), rtol=1e-5)
        assert_uniform(weight, bound, name)
        assert_uniform(bias, bound, name)


def test_pytorchs_law_is_pytorchs() -> None:
    """Grouped and local layers too: the fan-in is what one output unit reads."""
    torch.manual_seed(3)
    fresh = build("two_column", image_size=36, classes=100)
    initialized = build("two_column", image_size=36, classes=100)
    initialize(initialized, "pytorch")
    for (name, theirs), ours in zip(fresh.named_parameters(), initialized.parameters(), strict=True):
        n = theirs.numel()
        assert_allclose(ours.detach().std(), theirs.detach().std(), rtol=2 * SIX_SIGMA / math.sqrt(2 * n), err_msg=name)
    local = LocalConv2d(16, 8, 3, map_size=(6, 6), padding=1)
    assert fan_in(local.weight) == 144
    assert_uniform(local.weight, 1 / 12, "weight")
    assert_uniform(local.bias, 1 / 12, "bias")


@pytest.mark.parametrize(("scheme", "like"), [("paper", "two_column"), ("caffe", "caffe_alexnet")])
def test_schemes_suit_any_variant(scheme: str, like: str) -> None:
    for model in ("one_weird_trick_lrn", "cifar_13pct"):
        network = build(model, image_size=SMALL[model], classes=100)
        initialize(network, scheme, seed=2)
        for name, layer in network.named_children():
            state = layer.state_dict()
            if state:
                std, bias = facts.INITIALISATION[like].get(name, (0.01, 0.0))
                assert_normal(state["weight"], std, name)
                assert torch.equal(state["bias"], torch.full_like(state["bias"], bias)), name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_seeds_decide(scheme: str) -> None:
    network, other = build("cifar_18pct"), build("cifar_18pct").double()
    initialize(network, scheme, seed=5)
    weight = network.state_dict()["conv2.weight"].clone()
    torch.manual_seed(99)
    initialize(other, scheme, seed=5)
    assert torch.equal(other.state_dict()["conv2.weight"], weight.double())
    initialize(network, scheme, seed=6)
    assert not torch.equal(network.state_dict()["conv2.weight"], weight)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match=r"xavier.*variant, pytorch, paper, caffe"):
        initialize(build("cifar_18pct"), "xavier")
