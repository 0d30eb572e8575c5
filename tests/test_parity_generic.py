"""The harness on models that are not AlexNet: torchvision's VGG-11 and SqueezeNet, a residual, a recurrent one."""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import flax.linen as flax_nn
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import parity
from parity.errors import CannotCompare
from parity.reports import html

pytestmark = pytest.mark.usefixtures("flax_promotes")


class VGG11(flax_nn.Module):
    hidden: int

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if width == "M":
                x = flax_nn.max_pool(x, (2, 2), (2, 2))
            else:
                x = flax_nn.relu(flax_nn.Conv(width, (3, 3), padding=1)(x))
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = flax_nn.relu(flax_nn.Dense(self.hidden)(x))
        return flax_nn.Dense(10)(x)


class Fire(flax_nn.Module):
    squeeze: int
    expand: int

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = flax_nn.relu(flax_nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        one = flax_nn.relu(flax_nn.Conv(self.expand, (1, 1), name="expand1x1")(x))
        three = flax_nn.relu(flax_nn.Conv(self.expand, (3, 3), padding=1, name="expand3x3")(x))
        return jnp.concatenate([one, three], axis=-1)


def ceil_pool(x: Any) -> Any:
    # SqueezeNet's pools are 3/2 ceil: the last window may hang over.
    odd = [((n - 3) % 2) for n in x.shape[1:3]]
    overhang: Any = [(0, odd[0]), (0, odd[1])]
    return flax_nn.max_pool(x, (3, 3), (2, 2), overhang)


class SqueezeNet11(flax_nn.Module):
    pool: Callable = ceil_pool

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = flax_nn.relu(flax_nn.Conv(64, (3, 3), 2, padding="VALID")(x))
        x = self.pool(x)
        for squeeze, expand in (
            (16, 64),
            (16, 64),
            (0, 0),
            (32, 128),
            (32, 128),
            (0, 0),
            (48, 192),
            (48, 192),
            (64, 256),
            (64, 256),
        ):
            x = Fire(squeeze, expand)(x) if squeeze else self.pool(x)
        x = flax_nn.relu(flax_nn.Conv(10, (1, 1))(x))
        return x.mean((1, 2))


class TorchBlock(nn.Module):
    """Two convolutions with batch normalisation and a shortcut, then a classifier."""

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.shortcut = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8 * 4 * 4, 5)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(F.relu(self.norm(self.first(x)))) + self.slope * self.shortcut(x)
        return self.head(F.avg_pool2d(F.relu(y), 2).flatten(1))


class FlaxBlock(flax_nn.Module):
    slope: float = 1.0

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        y = flax_nn.Conv(8, (3, 3), padding=1, name="first")(x)
        y = flax_nn.relu(flax_nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(y))
        y = flax_nn.Conv(8, (3, 3), padding=1, name="second")(y)
        y = flax_nn.relu(y + self.slope * flax_nn.Conv(8, (1, 1), name="shortcut")(x))
        y = flax_nn.avg_pool(y, (2, 2), (2, 2))
        return flax_nn.Dense(5, name="head")(y.reshape(y.shape[0], -1))


class TorchRecurrent(nn.Module):
    """Words to an embedding, an Elman network over time, layer normalisation, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.inputs, self.state = nn.Linear(6, 7), nn.Linear(7, 7, bias=False)
        self.norm, self.head = nn.LayerNorm(7), nn.Linear(7, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words)
        h = torch.zeros(x.shape[0], 7, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.tanh(self.inputs(x[:, t]) + self.state(h))
        return torch.log_softmax(self.head(self.norm(h)), -1)


class FlaxRecurrent(flax_nn.Module):
    activation: Callable = jnp.tanh

    @flax_nn.compact
    def __call__(self, words: Any) -> Any:
        x = flax_nn.Embed(11, 6, param_dtype=jnp.float64, name="words")(words)
        inputs = flax_nn.Dense(7, name="inputs")
        state = flax_nn.Dense(7, use_bias=False, name="state")
        h = jnp.zeros((x.shape[0], 7), x.dtype)
        for t in range(x.shape[1]):
            h = self.activation(inputs(x[:, t]) + state(h))
        h = flax_nn.LayerNorm(epsilon=1e-5, name="norm")(h)
        return flax_nn.log_softmax(flax_nn.Dense(3, name="head")(h))


def shaken(model: nn.Module) -> nn.Module:
    """Random biases and statistics: fresh ones are zeros and ones, which hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(noise + 0.5 if "var" in name or "norm.weight" in name else noise - 0.3)
    return model


@pytest.fixture
def block() -> nn.Module:
    torch.manual_seed(0)
    return shaken(TorchBlock())


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(2, 3, 8, 8))


def test_vgg11_against_torchvision(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = torchvision.models.vgg11(num_classes=10)
    # 7x7 maps, as the original, would cost 100 million weights: average to 1x1 and keep 64 hidden units.
    model.avgpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    model.classifier = nn.Sequential(
        nn.Linear(512, 64),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(64, 64),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(64, 10),
    )
    report = parity.compare(VGG11(64), shaken(model), rng.normal(size=(1, 3, 32, 32)), gradients=False)
    assert report.equal, str(report)
    assert report.exit_code == 0
    assert next(row.name for row in report.rows if row.stage == "forward") == "Conv_0"
    assert sum(row.stage == "forward" for row in report.rows) == 11


def test_squeezenet_against_torchvision(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = shaken(torchvision.models.squeezenet1_1(num_classes=10))
    images = rng.normal(size=(1, 3, 47, 39))
    report = parity.compare(SqueezeNet11(), model, images, gradients=False)
    assert report.equal, str(report)
    assert sum(row.stage == "forward" for row in report.rows) == 26


def test_squeezenet_with_a_floor_mode_pool_is_caught_where_the_shapes_part(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = shaken(torchvision.models.squeezenet1_1(num_classes=10))
    candidate = SqueezeNet11(pool=lambda x: flax_nn.max_pool(x, (3, 3), (2, 2)))
    report = parity.compare(candidate, model, rng.normal(size=(1, 3, 41, 41)), gradients=False)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage, first.verdict) == ("Fire_0/squeeze", "input", "shape")
    assert report.exit_code == 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_residual_network(block: nn.Module, pictures: np.ndarray, dtype: str) -> None:
    report = parity.compare(FlaxBlock(), block, pictures, dtype=dtype)
    assert report.equal, str(report)
    assert report.exit_code == 0
    assert {row.stage for row in report.rows} >= {"input", "forward", "backward", "backward:kernel", "cotangent"}


def test_residual_network_with_its_own_variables(block: nn.Module, pictures: np.ndarray) -> None:
    variables = converted(block)
    assert parity.compare(FlaxBlock(), block, pictures, variables=variables).equal
    kernel = variables["params"]["second"]["kernel"]
    variables["params"]["second"]["kernel"] = jnp.swapaxes(kernel, 0, 1)
    first = parity.compare(FlaxBlock(), block, pictures, variables=variables).first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("second", "weights:kernel")


def test_a_wrong_sum_between_layers_is_caught_at_the_next_one(block: nn.Module, pictures: np.ndarray) -> None:
    report = parity.compare(FlaxBlock(slope=0.999), block, pictures)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("head", "input")
    assert first.index is not None
    assert first.jax != first.torch
    # The page shows what its verdict speaks of, in the chart and as a heat map.
    assert report.arrays_of is first
    page = html.render(report)
    assert page.count('class="first"') == 1
    assert re.search(r"<text [^>]*>head, input</text>", page)
    assert "Where it differs: model, head, input" in page
    # ... and backward at the layer before it, whose gradient is 0.1% short.
    backward = next(row for row in report.rows if row.stage == "cotangent" and not row.equal)
    assert backward.name == "shortcut"


def test_recurrent_network() -> None:
    torch.manual_seed(0)
    words = np.array([[1, 5, 2, 10], [0, 3, 3, 7]])
    report = parity.compare(FlaxRecurrent(), shaken(TorchRecurrent()), words, flax_inputs=(words,))
    assert report.equal, str(report)
    assert sum(row.name == "state" and row.stage == "forward" for row in report.rows) == 4


def test_recurrent_network_with_another_activation() -> None:
    torch.manual_seed(0)
    words = np.array([[1, 5, 2, 10], [0, 3, 3, 7]])
    candidate = FlaxRecurrent(activation=flax_nn.hard_tanh)
    first = parity.compare(candidate, shaken(TorchRecurrent()), words).first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("state", "input")


def converted(block: nn.Module) -> dict[str, Any]:
    """What a careful person writes when they port the block."""
    state = {k: v.double().numpy() for k, v in block.state_dict().items() if v.is_floating_point()}
    params: dict[str, Any] = {
        name: {
            "kernel": jnp.asarray(state[f"{name}.weight"].transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(state[f"{name}.bias"]),
        }
        for name in ("first", "second", "shortcut")
    }
    params["norm"] = {"scale": jnp.asarray(state["norm.weight"]), "bias": jnp.asarray(state["norm.bias"])}
    rows = state["head.weight"].reshape(5, 8, 4, 4).transpose(0, 2, 3, 1).reshape(5, -1)
    params["head"] = {"kernel": jnp.asarray(rows.T), "bias": jnp.asarray(state["head.bias"])}
    statistics = {"mean": jnp.asarray(state["norm.running_mean"]), "var": jnp.asarray(state["norm.running_var"])}
    return {"params": params, "batch_stats": {"norm": statistics}}


class TorchPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.left(x) * self.right(x))


class FlaxPair(flax_nn.Module):
    extra: bool = False

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        a, b = flax_nn.Dense(4, name="a"), flax_nn.Dense(4, name="b")
        if self.extra:
            x = x + flax_nn.Dense(4, name="c")(x)
        return flax_nn.Dense(2, name="top")(a(x) * b(x))


def test_layers_that_cannot_be_told_apart_are_refused_by_name(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    with pytest.raises(CannotCompare, match=r"Flax c, a, b could be PyTorch left, right"):
        parity.compare(FlaxPair(extra=True), TorchPair(), x)
    with pytest.raises(CannotCompare, match=r"'lft', no leaf of the PyTorch model; it has left, right, last"):
        parity.compare(FlaxPair(), TorchPair(), x, mapping={"a": "lft"})


def test_a_mapping_says_which_is_which(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    report = parity.compare(FlaxPair(), shaken(TorchPair()), x, mapping={"a": "right", "b": "left"})
    assert report.equal, str(report)
    assert next(r.torch_name for r in report.rows if r.name == "a") == "right"


def test_unsupported_layers_are_refused_by_name(rng: np.random.Generator) -> None:
    class Recurrent(flax_nn.Module):
        @flax_nn.compact
        def __call__(self, x: Any) -> Any:
            cell = flax_nn.MGUCell(3, name="over")
            return cell(jnp.zeros((1, 3, 3)), x)[1]

    class Own(nn.GRU):
        pass

    x = rng.normal(size=(1, 3, 4))
    with pytest.raises(CannotCompare, match=r"MGUCell at 'over' \(Flax\)"):
        parity.compare(Recurrent(), nn.Linear(4, 3), x)
    with pytest.raises(CannotCompare, match=r"GRU at 'over' \(PyTorch\)"):
        parity.compare(flax_nn.Dense(3), nn.Sequential(OrderedDict(over=Own(4, 3))), x)


def test_as_many_channels_as_places_at_the_end() -> None:
    """The shape alone doesn't say how the cotangent lies that both sides are given: the output's values do."""
    torch.manual_seed(0)
    original = nn.Linear(4, 3).double()
    report = parity.compare(
        flax_nn.Sequential([flax_nn.Dense(3)]), nn.Sequential(original), np.random.default_rng(0).normal(size=(2, 3, 4))
    )
    assert report.equal, str(report)
