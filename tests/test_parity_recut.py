"""Layers that the two sides cut differently: fused projections, convolutions of one pixel, causal ones, axes of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from numpy.typing import NDArray
from torch import Tensor, nn

import parity
from parity.causes import masks
from parity.comparison import layer_names


class Mixed(nn.Module):
    """Queries, keys and values in one convolution, gate and value in one layer, a causal convolution cut to length."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Conv2d(4, 12, 1), nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.gate_up = nn.Linear(4, 6, bias=False)
        self.conv = nn.Conv1d(3, 3, 3, padding=2, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        y = v @ torch.softmax(k.mT @ q, 1)
        x = x + self.scale * self.proj(y.view_as(x))
        gate, up = self.gate_up(x.flatten(2).mT).chunk(2, -1)
        y = (F.silu(gate) * up).mT
        return self.conv(y)[..., : y.shape[-1]]


class Ported(nnx.Module):
    """The same, each projection by itself, over rows of tokens."""

    def __init__(self, shift: int = 0) -> None:
        rngs, self.shift = nnx.Rngs(0), shift
        self.q, self.k, self.v, self.proj = (nnx.Linear(4, 4, rngs=rngs) for _ in range(4))
        self.scale = nnx.Param(jnp.ones((1, 1, 4)))
        self.gate, self.up = (nnx.Linear(4, 3, use_bias=False, rngs=rngs) for _ in range(2))
        self.conv = nnx.Conv(3, 3, 3, padding="CAUSAL", feature_group_count=3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1, 4)
        q, k, v = self.q(x), self.k(x), self.v(x)
        y = jax.nn.softmax(jnp.roll(q, self.shift, 1) @ k.mT, -1) @ v
        x = x + self.scale[...] * self.proj(y)
        return self.conv(jax.nn.silu(self.gate(x)) * self.up(x))


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return Mixed()


def _x(*shape: int) -> NDArray:
    return np.random.default_rng(0).normal(size=shape)


def test_layers_that_are_cut_differently_are_compared_one_by_one(original: nn.Module) -> None:
    report = parity.compare(Ported(), original, _x(2, 4, 2, 3))
    assert report.exit_code == 0, report
    assert {row.torch_name for row in report.rows if row.name == "k"} == {"qkv.[k]"}
    # The mapping speaks of the state dict as it is.
    arrays = report.mapping.to_jax({name: tensor.numpy() for name, tensor in original.state_dict().items()})
    weight = original.get_parameter("qkv.weight").detach().numpy()
    assert np.array_equal(arrays["k/kernel"], weight[4:8, :, 0, 0].T)
    assert np.array_equal(arrays["conv/kernel"], original.get_parameter("conv.weight").detach().numpy().T)


def test_a_mistake_between_their_parts_is_found_there(original: nn.Module) -> None:
    report = parity.compare(Ported(shift=1), original, _x(2, 4, 2, 3), gradients=False)
    assert report.first_divergence is not None and report.first_divergence.name == "proj"


class Decoder(nn.Module):
    """A transposed convolution, and keys whose bias no softmax sees."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(2, 4, 3, stride=2)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.key = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x).mT
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return torch.softmax(x @ self.key(x).mT, -1) @ x


def _decoder(approximate: bool = False, mirrored: bool = True, stack: tuple = (0, 1, 2)) -> parity.Report:
    torch.manual_seed(0)
    model = Decoder().double()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    stacked = {k: np.stack([state[f"layers.{i}.{k}"] for i in stack]) for k in ("weight", "bias")}
    kernel = state["up.weight"].transpose(2, 0, 1)
    tree = {
        "up": {"w": kernel[::-1] if mirrored else kernel, "b": state["up.bias"]},
        "layers": {"w": stacked["weight"].transpose(0, 2, 1), "b": stacked["bias"]},
        "key": {"w": state["key.weight"].T, "b": state["key.bias"]},
    }

    def function(tree: dict, x: jax.Array) -> jax.Array:
        orders = ("NCH", "HIO", "NHC")
        x = jax.lax.conv_general_dilated(x, tree["up"]["w"], (1,), [(2, 2)], (2,), dimension_numbers=orders)
        x = x + tree["up"]["b"][None, None]

        def layer(x: jax.Array, weights: dict) -> tuple[jax.Array, None]:
            return x + jax.nn.gelu(x @ weights["w"] + weights["b"][None, None], approximate=approximate), None

        x, _ = jax.lax.scan(layer, x, tree["layers"])
        return jax.nn.softmax(x @ (x @ tree["key"]["w"] + tree["key"]["b"][None, None]).mT, -1) @ x

    return parity.compare(function, model, _x(2, 2, 3), variables=tree)


def test_a_mirrored_kernel_and_a_gradient_of_nothing_are_no_differences() -> None:
    assert _decoder().equal


class Faint(nn.Module):
    """A branch that counts a thousandth of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.faint = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(x) + self.faint(x) * 1e-3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_small_gradient_that_is_missing_is_no_rounding(dtype: str) -> None:
    def function(tree: dict, x: jax.Array) -> jax.Array:
        loud, faint = (x @ tree[name]["w"].T + tree[name]["b"][None] for name in ("loud", "faint"))
        return loud + jax.lax.stop_gradient(faint) * 1e-3

    torch.manual_seed(0)
    model = Faint()
    variables = {
        name: {"w": jnp.asarray(layer.weight.detach().numpy()), "b": jnp.asarray(layer.bias.detach().numpy())}
        for name, layer in (("loud", model.loud), ("faint", model.faint))
    }
    found = parity.compare(function, model, _x(4, 3), variables=variables, dtype=dtype)
    differing = {row.torch_name for row in found.rows if row.verdict == "mismatch"}
    assert differing - {"input 0"} == {"faint.weight", "faint.bias"}


def test_a_kernel_that_is_not_mirrored_is_found_in_what_it_gives() -> None:
    row = _decoder(mirrored=False).first_divergence
    assert row is not None and (row.stage, row.cause_keys[:1]) == ("outputs", ["kernel_flipped"])


def test_layers_stacked_in_another_order_are_named() -> None:
    row = _decoder(stack=(2, 1, 0)).first_divergence
    assert row is not None and (row.stage, row.cause_keys) == ("weights", ["order"])
    assert "0 holds 2, 2 holds 0" in row.causes[0]


def test_one_mistake_in_all_scanned_layers_is_named() -> None:
    row = _decoder(approximate=True).first_divergence
    assert row is not None and "GELU's approximation by tanh" in row.causes[0] and "in all 3 places" in row.causes[0]


class Steps(nn.Module):
    """A norm of the batch behind sines and cosines of times, as diffusion models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-np.log(10000.0) * torch.arange(3, dtype=torch.float64) / 3)
        return self.norm(self.layer(torch.cat([angles.cos(), angles.sin()], -1)))


@pytest.mark.parametrize(
    ("mistake", "key"),
    [
        ({}, None),
        ({"steps": 2}, "frequency_steps"),
        ({"base": 500.0}, "frequency_base"),
        ({"later": 1}, "position_offset"),
        ({"epsilon": 1e-3}, "epsilon"),
    ],
)
def test_mistakes_in_sines_of_times_and_in_norms_of_functions_are_named(mistake: dict, key: str | None) -> None:
    torch.manual_seed(0)
    model = Steps().double()
    set_to = {"steps": 3, "base": 10000.0, "later": 0, "epsilon": 1e-5} | mistake

    def function(tree: dict, t: jax.Array) -> jax.Array:
        frequencies = set_to["base"] ** (-jnp.arange(3.0) / set_to["steps"])
        angles = (t.astype(jnp.float64) + set_to["later"])[:, None] * frequencies[None]
        y = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1) @ tree["layer"]["w"] + tree["layer"]["b"][None]
        y = (y - y.mean(0, keepdims=True)) / jnp.sqrt(y.var(0, keepdims=True) + set_to["epsilon"])
        return y * tree["norm"]["scale"][None] + tree["norm"]["bias"][None]

    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tree = {
        "layer": {"w": state["layer.weight"].T, "b": state["layer.bias"]},
        "norm": {"scale": state["norm.weight"], "bias": state["norm.bias"]},
    }
    row = parity.compare(function, model, np.array([3, 70, 500, 8]), variables=tree, gradients=False).first_divergence
    assert (None if row is None else row.cause_keys[:1]) == (None if key is None else [key])


@pytest.mark.parametrize(
    ("theirs", "ours", "key"),
    [
        ((0, 9), (0, 3), "window_added"),
        ((0, 3), (-1, 3), "mask_off_by_one"),
        ((0, 3), (1, 3), "mask_off_by_one"),
        ((0, 3), (-9, 3), "causal_missing"),
        ((0, 3), (-2, 3), "window_both"),
    ],
)
def test_masks_of_windows_that_are_added_or_moved(theirs: tuple, ours: tuple, key: str) -> None:
    apart = np.arange(5)[:, None] - np.arange(5)
    seen, other = ((apart >= low) & (apart < high) for low, high in (theirs, ours))
    named = [each for each, _, made in masks._masks(seen) if np.array_equal(made, other)]
    assert named[:1] == [key]


@pytest.mark.parametrize(
    ("flax", "torch_path", "same"),
    [
        ("mlp/gate", "mlp.gate_proj", True),
        ("mlp/up_proj", "mlp.up", True),
        ("attn/q", "attn.qkv.[q]", True),
        ("mlp/gate", "mlp.up_proj", False),
        ("block/proj", "block.proj", True),
    ],
)
def test_names_that_say_no_more_than_that_it_is_a_layer(flax: str, torch_path: str, same: bool) -> None:
    assert layer_names.alike(flax, torch_path) is same


class OverTime(nn.Module):
    """A convolution over time: cut off behind, padded by the code before it, or SAME."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, padding = way, {"cut": 4, "outside": 0, "same": 2}[way]
        self.conv, self.out = nn.Conv1d(3, 3, 3, padding=padding, dilation=2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x, (4, 0)) if self.way == "outside" else x)
        return self.out(F.silu(y[..., : x.shape[-1]]).mT)


class OverTimePorted(nnx.Module):
    def __init__(self, padding: str) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 3, 3, padding=padding, kernel_dilation=2, rngs=rngs)
        self.out = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.silu(self.conv(x)))


@pytest.mark.parametrize(("way", "padding"), [("cut", "SAME"), ("outside", "SAME"), ("same", "CAUSAL")])
def test_same_for_causal_and_the_other_way_round_is_named_where_it_is(way: str, padding: str) -> None:
    torch.manual_seed(0)
    x = _x(2, 3, 9)
    report = parity.compare(OverTimePorted(padding), OverTime(way), x, flax_inputs=(x.swapaxes(1, 2),))
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("conv", "forward")
    assert first.cause_keys == ["padding_causal"], first.causes
