"""One activation in another's place, in a layer of PyTorch's and in the code between: it is named."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parity
from parity.kinds import activation

X = torch.linspace(-7, 7, 29, dtype=torch.float64)
MODULES = {
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "leaky_relu": nn.LeakyReLU(),
    "leaky_relu_fifth": nn.LeakyReLU(0.2),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "softplus": nn.Softplus(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(),
    "identity": nn.Identity(),
    "softsign": nn.Softsign(),
    "log_sigmoid": nn.LogSigmoid(),
    "tanhshrink": nn.Tanhshrink(),
    "relu_squared": lambda x: torch.relu(x) ** 2,
    "hardsigmoid_keras": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),  # Keras's before version 3
}


def test_curves_are_pytorchs() -> None:
    assert set(activation.CURVES) - set(MODULES) == {"gelu_quick"}
    for key, module in MODULES.items():
        found = activation.CURVES[key].function(X.numpy())
        x = X.clone().requires_grad_()
        y = module(x)
        np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-8, atol=1e-12, err_msg=key)
        (slope,) = torch.autograd.grad(y.sum(), x)
        # PyTorch holds the sixth of its hard sigmoid's slope in float32.
        np.testing.assert_allclose(activation.CURVES[key].slope(X.numpy()), slope, rtol=1e-7, atol=1e-10, err_msg=key)


class Original(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(3 * self.a(x)))


class Port(linen.Module):
    function: Callable[[Any], Any]

    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(3, name="b")(self.function(3 * linen.Dense(6, name="a")(x)))


@pytest.mark.parametrize(
    ("original", "ported", "words"),
    [
        (F.gelu, jax.nn.gelu, "GELU's approximation by tanh stands for GELU"),  # JAX's default
        (nn.GELU("tanh"), lambda x: jax.nn.gelu(x, approximate=False), "GELU stands for GELU's approximation by tanh"),
        (F.silu, jax.nn.relu, "ReLU stands for SiLU"),
        (F.relu6, jax.nn.relu, "ReLU stands for ReLU6"),
        (F.hardswish, jax.nn.silu, "SiLU stands for hard swish"),
        (F.leaky_relu, lambda x: jax.nn.leaky_relu(x, 0.2), "ReLU with slope 0.2 stands for ReLU with slope 0.01"),
        (F.softplus, jax.nn.relu, "ReLU stands for softplus"),
        (torch.tanh, jax.nn.sigmoid, "the sigmoid stands for tanh"),
        (F.gelu, lambda x: x * jax.nn.sigmoid(1.702 * x), "GELU's approximation by a sigmoid stands for GELU"),
        (F.elu, lambda x: x, "ELU is left out"),
        (nn.ReLU(), lambda x: x, "JAX: ReLU is left out (undone"),
    ],
)
def test_the_activation_that_stands_in_its_place_is_named(original, ported, words, flax_promotes) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(9, 4), scale=3)  # beyond 6, where ReLU6 differs from ReLU
    report = parity.compare(Port(ported), Original(original), x, gradients=False)
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("b", "input")
    assert any(words in cause for cause in first.causes), (first.causes, first.detail)


def test_jaxs_own_are_equal(flax_promotes) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 4))
    for original, ported in [
        (F.gelu, lambda x: jax.nn.gelu(x, approximate=False)),
        (F.mish, jax.nn.mish),
        (torch.tanh, jnp.tanh),
    ]:
        assert parity.compare(Port(ported), Original(original), x).equal
