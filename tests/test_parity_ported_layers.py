"""Layers that ports and their originals write in classes of their own: compared all the same."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import linen, nnx
from torch import Tensor, nn

import parity
from parity.reference import torch_fused

pytestmark = pytest.mark.usefixtures("flax_promotes")
rngs = nnx.Rngs(0)
MAP = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
ROWS = np.random.default_rng(1).normal(size=(3, 5, 4))
TOKENS = np.random.default_rng(2).integers(0, 11, (2, 5))


def drawn(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


class NormAndActivation(nn.BatchNorm2d):
    """With its activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class FlaxNormed(linen.Module):
    epsilon: float = 1e-5
    activation: Any = linen.silu

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (3, 3), use_bias=False, padding=1, name="conv")(x)
        return self.activation(linen.BatchNorm(use_running_average=True, epsilon=self.epsilon, name="bn")(x))


def test_a_norm_with_its_activation_inside_is_taken_apart() -> None:
    layers = {"conv": nn.Conv2d(3, 4, 3, padding=1, bias=False), "bn": NormAndActivation(4)}
    original = nn.Sequential()
    for name, layer in layers.items():
        original.add_module(name, layer)
    drawn(original)
    report = parity.compare(FlaxNormed(), original, MAP)
    assert report.equal, str(report)
    assert {row.stage for row in report.rows if row.name == "bn"} >= {"forward", "backward:scale", "backward:bias"}
    made = report.mapping.to_tree(original.state_dict())
    assert np.array_equal(made["batch_stats"]["bn"]["var"], original.get_buffer("bn.running_var").numpy())
    assert {*original.state_dict()} - {*report.mapping.to_torch(made)} == {"bn.num_batches_tracked"}
    [found] = parity.compare(FlaxNormed(epsilon=1e-3), original, MAP).divergences
    assert (found.name, found.causes[0][:36]) == ("bn", "JAX: epsilon is 0.001, not 1e-05 (un")
    [found] = parity.compare(FlaxNormed(activation=linen.relu), original, MAP).divergences
    assert found.name == "output"


def test_one_that_does_something_else_is_left_as_it_is() -> None:
    class Otherwise(NormAndActivation):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Otherwise(3), NormAndActivation(3))
    torch_fused.separated(drawn(model).double(), (torch.from_numpy(MAP),), {})
    assert [type(module).__name__ for module in model] == ["Otherwise", "Apart"]


class Turned(nn.Module):
    """x @ weight + bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


def test_a_linear_layer_whose_weight_is_transposed() -> None:
    class Flax(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(6, name="out")(linen.relu(linen.Dense(4, name="hidden")(x)))

    original = nn.Sequential(Turned(4, 4), nn.ReLU(), Turned(4, 6))
    report = parity.compare(Flax(), drawn(original), ROWS)
    assert report.equal, str(report)
    assert {row.kind for row in report.rows if row.name == "out"} == {"dense"}
    made, state = report.mapping.to_tree(original.state_dict()), original.state_dict()
    assert np.array_equal(made["params"]["out"]["kernel"], state["2.weight"].numpy())
    back = report.mapping.to_torch(made)
    assert {*back} == {*state} and all(np.array_equal(back[name], state[name].numpy()) for name in state)


class OwnNorm(nn.Module):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(4)), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class FlaxOwnNorm(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        gamma = self.param("gamma", lambda key: jnp.ones(4))
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * gamma


def test_a_norm_of_someones_own_has_a_weight_where_flax_has_a_scale() -> None:
    class Flax(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.Dense(4, name="first")(linen.RMSNorm(epsilon=1e-6, name="norm")(x))
            return linen.Dense(4, name="second")(FlaxOwnNorm(name="other")(x))

    layers = [OwnNorm(1e-6), nn.Linear(4, 4), OwnNorm(1e-6), nn.Linear(4, 4)]
    report = parity.compare(Flax(), drawn(nn.Sequential(*layers)), ROWS)
    assert report.equal, str(report)
    assert {row.stage for row in report.rows if row.name == "other"} >= {"forward", "backward:gamma"}
    layers[2] = OwnNorm(1e-3)
    [found] = parity.compare(Flax(), drawn(nn.Sequential(*layers)), ROWS).divergences
    assert found.name == "other"


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.hidden, self.head = nn.Embedding(11, 4), nn.Linear(4, 4), nn.Linear(4, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(self.tokens(tokens)))


class FlaxLanguage(nnx.Module):
    """Indexes its table, and multiplies with it."""

    def __init__(self, scale: float = 1.0) -> None:
        self.embedder, self.dense, self.scale = nnx.Embed(11, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs), scale

    def __call__(self, tokens: Any) -> Any:
        table = self.embedder.embedding[...]
        return self.dense(table[tokens] * self.scale) @ table.T


def test_a_table_that_is_indexed_instead_of_called() -> None:
    original = drawn(Language())
    report = parity.compare(FlaxLanguage(), original, TOKENS)
    assert report.equal, str(report)
    assert "backward:value" in {row.stage for row in report.rows if row.name == "embedder/embedding"}
    found = parity.compare(FlaxLanguage(1.01), original, TOKENS).first_divergence
    assert found is not None
    assert (found.name, found.stage) == ("dense", "input")


class PaddedOutside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(self.before(x), (0, 1, 0, 1)))


def test_padding_in_the_code_before_a_layer_or_in_the_layer() -> None:
    class Flax(linen.Module):
        padding: Any = "SAME"

        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.Conv(4, (1, 1), name="before")(x)
            return linen.Conv(5, (3, 3), (2, 2), padding=self.padding, name="conv")(x)

    original = drawn(PaddedOutside())
    report = parity.compare(Flax(), original, MAP)
    assert report.equal, str(report)
    assert {"backward", "backward:kernel"} <= {row.stage for row in report.rows if row.name == "conv"}
    assert {"cotangent"} <= {row.stage for row in report.rows if row.name == "before"}
    wrong = parity.compare(Flax(((1, 0), (1, 0))), original, MAP)
    assert (wrong.divergences[0].name, wrong.divergences[0].stage) == ("conv", "forward")


class Rotation(nn.Module):
    """Holds constants, and returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(torch.tensor([1.0, 0.1]), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * self.frequencies
        return angles.cos(), angles.sin()


class Rotated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rotary, self.linear = Rotation(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        (cos, sin), (a, b) = self.rotary(x), self.linear(x).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def test_constants_of_a_module_need_no_partner() -> None:
    class FlaxRotation(nnx.Module):
        def __call__(self, x: Any) -> Any:
            frequencies = jnp.asarray(np.array([1.0, 0.1], np.float32), x.dtype)
            angles = jnp.outer(jnp.arange(x.shape[1], dtype=x.dtype), frequencies)
            return jnp.cos(angles), jnp.sin(angles)

    class Flax(nnx.Module):
        def __init__(self) -> None:
            self.rotary, self.linear = FlaxRotation(), nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            (cos, sin), (a, b) = self.rotary(x), jnp.split(self.linear(x), 2, -1)
            return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    report = parity.compare(Flax(), Rotated(), ROWS)
    assert report.equal, str(report)


class ChannelsFirst(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_layer_norm_over_the_channels_of_a_map() -> None:
    class Flax(linen.Module):
        epsilon: float = 1e-6

        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.LayerNorm(epsilon=self.epsilon, name="norm")(x)
            return linen.Conv(4, (2, 2), padding="VALID", name="conv")(x)

    original = drawn(nn.Sequential(ChannelsFirst(3, eps=1e-6), nn.Conv2d(3, 4, 2)))
    assert parity.compare(Flax(), original, MAP).equal
    [found] = parity.compare(Flax(1e-4), original, MAP).divergences
    assert (found.name, found.causes[0][:37]) == ("norm", "JAX: epsilon is 0.0001, not 1e-06 (un")


class HeadsFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.norm, self.out = nn.Linear(6, 6), nn.LayerNorm(3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.query(x.transpose(1, 2)).unflatten(-1, (2, 3)).transpose(1, 2)
        return self.out(self.norm(heads).transpose(1, 2).flatten(2))


def test_axes_in_another_order_of_inputs_and_of_heads() -> None:
    class Flax(linen.Module):
        scale: float = 1.0

        @linen.compact
        def __call__(self, x: Any) -> Any:
            heads = linen.Dense(6, name="query")(self.scale * x).reshape(*x.shape[:2], 2, 3)
            normed = linen.LayerNorm(epsilon=1e-5, name="norm")(heads)
            return linen.Dense(2, name="out")(normed.reshape(*x.shape[:2], 6))

    x = np.random.default_rng(3).normal(size=(2, 6, 5))
    turned = (x.swapaxes(1, 2),)
    report = parity.compare(Flax(), drawn(HeadsFirst()), x, flax_inputs=turned)
    assert report.equal, str(report)
    assert ("input", "cotangent") in {(row.name, row.stage) for row in report.rows}
    wrong = parity.compare(Flax(1.01), drawn(HeadsFirst()), x, flax_inputs=turned)
    assert [(row.name, row.stage) for row in wrong.divergences] == [("query", "input")]


def test_a_bias_that_flax_alone_has_is_told() -> None:
    class Flax(nnx.Module):
        def __init__(self) -> None:
            self.key, self.out = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.out(jax.nn.relu(self.key(x)))

    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.out = nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.key(x).relu())

    report = parity.compare(Flax(), drawn(Torch()), ROWS)
    assert report.not_exercised == ["key has bias in Flax alone, which stays as it was made"]
    assert report.exit_code == 3


def test_a_function_whose_parameters_have_the_same_values_in_every_layer() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decay = nn.Parameter(torch.arange(1.0, 5.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.decay

    tree = {f"layers_{i}": {"decay": np.arange(1.0, 5.0)} for i in range(2)}

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(OrderedDict(layers=nn.Sequential(Layer(), Layer())))

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    def function(tree: Any, x: Any) -> Any:
        return x * tree["layers_0"]["decay"] * tree["layers_1"]["decay"]

    report = parity.compare(function, Wrapped(), ROWS, variables=tree)
    assert report.equal, str(report)
    assert {row.torch_name for row in report.rows if row.name == "layers_1/decay"} == {"model.layers.1.decay"}
