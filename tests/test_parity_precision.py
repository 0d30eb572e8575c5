"""A layer that computes in fewer bits than its lane is a divergence of that layer, with the precision as its cause."""

from collections.abc import Callable
from typing import Any

import flax.linen as flax_nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parity
from parity.bounds.torch_rounding import RunningError
from parity.candidate import jax_precision
from parity.causes.layer import precision as precision_causes
from parity.reports.report import Report


class FlaxNet(flax_nn.Module):
    """A convolution, a pool, ReLU and a dense layer; what is under test changes values where it is told to."""

    change: Callable[[Any, str], Any] = lambda x, where: x

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = Conv(self.change, name="conv")(x)
        x = self.change(Pool(self.change, name="pool")(x), "between")
        return flax_nn.Dense(3, name="last")(x.reshape(x.shape[0], -1))


class Conv(flax_nn.Module):
    change: Callable[[Any, str], Any]

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = self.param("kernel", flax_nn.initializers.zeros, (3, 3, 3, 4), x.dtype)
        bias = self.param("bias", flax_nn.initializers.zeros, (4,), x.dtype)
        x, kernel = self.change(x, "conv input"), self.change(kernel, "kernel")
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)
        return self.change(y.astype(bias.dtype) + bias.reshape(1, 1, 1, 4), "conv output")


class Pool(flax_nn.Module):
    change: Callable[[Any, str], Any]

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.change(x, "pool input")
        return 0.25 * (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2])


class TorchNet(nn.Module):
    def __init__(self, change: Callable[[Tensor, str], Tensor] = lambda x, where: x) -> None:
        super().__init__()
        self.conv, self.pool = TorchConv(change), TorchPool(change)
        self.last, self.change = nn.Linear(36, 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(self.pool(self.conv(x)), "between").flatten(1))


class TorchConv(nn.Conv2d):
    def __init__(self, change: Callable[[Tensor, str], Tensor]) -> None:
        super().__init__(3, 4, 3)
        self.change = change

    def forward(self, input: Tensor) -> Tensor:
        x, weight = self.change(input, "conv input"), self.change(self.weight, "kernel")
        y = F.conv2d(x, weight).to(self.weight.dtype) + self.bias.reshape(1, 4, 1, 1)  # type: ignore[union-attr]
        return self.change(y, "conv output")


class TorchPool(nn.AvgPool2d):
    def __init__(self, change: Callable[[Tensor, str], Tensor]) -> None:
        super().__init__(2)
        self.change = change

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.change(input, "pool input"))


def there_and_back(place: str, name: str) -> dict[str, Callable[[Any, str], Any]]:
    """A cast to fewer bits and back at one place, in either framework."""

    def in_jax(x: Any, where: str) -> Any:
        return x.astype(jnp.dtype(name)).astype(x.dtype) if where == place else x

    def in_torch(x: Tensor, where: str) -> Tensor:
        return x.to(getattr(torch, name)).to(x.dtype) if where == place else x

    return {"JAX": in_jax, "PyTorch": in_torch}


def compared(side: str, change: Any, dtype: str = "float64", **more: Any) -> Report:
    torch.manual_seed(0)
    model = TorchNet(change) if side == "PyTorch" else TorchNet()
    candidate = FlaxNet(change) if side == "JAX" else FlaxNet()
    for parameter in model.double().parameters():  # float32 weights would survive a cast to float32
        parameter.data *= 1 + 1e-9 * torch.randn(parameter.shape, dtype=torch.float64)
    x = 3 * np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    return parity.compare(candidate, model, x, dtype=dtype, **more)


PLACES = {"conv input": "conv", "kernel": "conv", "conv output": "conv", "pool input": "pool", "between": "last"}


@pytest.mark.parametrize("side", ["JAX", "PyTorch"])
@pytest.mark.parametrize("place", PLACES)
def test_a_cast_to_float32_is_named_where_it_is(place: str, side: str) -> None:
    report = compared(side, there_and_back(place, "float32")[side], gradients=False)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage) == (PLACES[place], "input" if place == "between" else "forward")
    assert first.cause_keys == ["float32"]
    assert first.causes[0].startswith(f"{side}: ")
    assert [row.name for row in report.divergences if row.name != "end to end"] == [PLACES[place]]


@pytest.mark.parametrize("side", ["JAX", "PyTorch"])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_formats_are_named_too(dtype: str, name: str, side: str) -> None:
    report = compared(side, there_and_back("conv input", name)[side], dtype, gradients=False)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("conv", [name])
    assert first.causes[0].startswith(f"{side}: ")


def whole_layer(x: Any, where: str) -> Any:
    """All that a convolution works with, so that its sums are float32's own."""
    if where not in ("conv input", "kernel"):
        return x
    return x.float() if isinstance(x, Tensor) else x.astype(jnp.float32)


@pytest.mark.parametrize("side", ["JAX", "PyTorch"])
def test_a_layer_that_computes_in_float32_is_named_by_what_was_seen(side: str) -> None:
    first = compared(side, whole_layer, gradients=False).first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("conv", "forward", ["float32"])
    assert first.causes[0].startswith(f"{side}: computes in float32 on the way")


def test_a_result_in_another_dtype_is_named() -> None:
    def narrow(x: Any, where: str) -> Any:
        return x.astype(jnp.float32) if where == "conv output" else x

    with jax.numpy_dtype_promotion("standard"):  # the rest of the network takes what it gets
        first = compared("JAX", narrow, gradients=False).first_divergence
    assert first is not None
    assert (first.name, first.verdict, first.cause_keys) == ("conv", "dtype", ["float32"])


def test_a_constant_in_float32_is_named() -> None:
    class Scaled(nn.AvgPool2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * torch.tensor([0.1])

    torch.manual_seed(0)
    model = TorchNet()
    model.pool = Scaled(2)  # type: ignore[assignment]
    candidate = FlaxNet(lambda x, where: x / 10 if where == "pool input" else x)
    first = parity.compare(candidate, model, np.random.default_rng(0).normal(size=(2, 3, 8, 8))).first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("pool", ["float32"])


@pytest.mark.parametrize("side", ["JAX", "PyTorch"])
def test_a_gradient_in_float32_is_named(side: str) -> None:
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient.float().to(gradient.dtype)

    @jax.custom_vjp
    def same(x: Any) -> Any:
        return x

    same.defvjp(lambda x: (x, None), lambda _, g: (g.astype(jnp.float32).astype(g.dtype),))

    def change(x: Any, where: str) -> Any:
        if where != "pool input":
            return x
        return Rounded.apply(x) if side == "PyTorch" else same(x)

    first = compared(side, change).first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("pool", "backward", ["float32"])
    assert first.causes[0].startswith(f"{side}: ")


def test_weights_that_went_through_float32_are_named() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    model = nn.Sequential(layer).double()
    for parameter in model.parameters():
        parameter.data *= 1 + 1e-9 * torch.randn(parameter.shape, dtype=torch.float64)
    kernel = jnp.asarray(layer.weight.detach().float().double().numpy().T)
    variables = {"params": {"layers_0": {"kernel": kernel, "bias": jnp.asarray(layer.bias.detach().numpy())}}}
    candidate = flax_nn.Sequential([flax_nn.Dense(4, param_dtype=jnp.float64)])
    first = parity.compare(
        candidate, model, np.random.default_rng(0).normal(size=(3, 5)), variables=variables
    ).first_divergence
    assert first is not None
    assert (first.stage, first.cause_keys) == ("weights:kernel", ["float32"])
    assert "JAX: weight is rounded to float32" in first.causes[0]


def test_roundings_below_the_lane_widen_no_bound() -> None:
    x = torch.randn(50, dtype=torch.float64)
    for lane, wide in ((None, True), (torch.float64, False)):
        mode = RunningError(lane)
        with mode:
            y = (x.float().double() * x).sum()
        error = mode.get(y).error
        assert error is not None
        assert (float(error) > 1e-8) == wide
        assert [name for name, _ in mode.coarse] == ([] if lane is None else ["float32", "float32"])


def test_operations_on_fewer_bits_are_read_from_the_traced_program() -> None:
    x = jnp.ones(3, jnp.float64)
    key = jax.random.key(0)  # random keys have no bits to speak of
    assert jax_precision.coarse(lambda key: jax.random.fold_in(key, 1), (key,), "float64") == []
    found = jax_precision.coarse(lambda x: jnp.sin(x.astype(jnp.float32)), (x,), "float64")
    assert ("float32", "convert_element_type") in found
    assert ("float32", "sin") in found
    assert jax_precision.coarse(jax.jit(lambda x: jnp.sin(x)), (x,), "float64") == []
    inside = jax.jit(lambda x: jax.lax.cond(x[0] > 0, lambda x: jax.lax.reduce_precision(x, 8, 7), lambda x: x, x))
    assert jax_precision.coarse(inside, (x,), "float64") == [("bfloat16", "reduce_precision")]
    assert jax_precision.coarse(lambda x: x.astype(jnp.float32), (x,), "bfloat16") == []


def test_roundings_are_those_of_the_formats(rng: np.random.Generator) -> None:
    x = rng.normal(size=4000) * 10.0 ** rng.integers(-3, 4, 4000)
    tensor = torch.from_numpy(x)
    for key, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        np.testing.assert_array_equal(precision_causes.FORMATS[key].rounded(x), tensor.to(dtype).double().numpy())
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])  # halfway between two bfloat16
    expected = torch.from_numpy(ties).to(torch.bfloat16).double().numpy()
    np.testing.assert_array_equal(precision_causes.FORMATS["bfloat16"].rounded(ties), expected)
