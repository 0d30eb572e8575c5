"""Models that aren't Linen's beside PyTorch's: flax nnx, and plain functions of a tree of parameters."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare


class Block(nnx.Module):
    def __init__(self, channels: int, epsilon: float, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(channels, epsilon=epsilon, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return nnx.relu(x + self.drop(self.bn(self.conv(x))))


class Residual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, epsilon: float = 1e-5) -> None:
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.blocks = nnx.List([Block(4, epsilon, rngs) for _ in range(2)])
        self.head = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.reshape(len(x), -1))


class TorchBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.Dropout(),
        )
        with torch.no_grad():
            for values in (self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias):
                assert values is not None
                values.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.drop(self.bn(self.conv(x))))


class TorchResidual(nn.Module):
    def __init__(self, channels_last: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.blocks = nn.ModuleList([TorchBlock(4) for _ in range(2)])
        self.head = nn.Linear(16, 2)
        self.order = (0, 2, 3, 1) if channels_last else (0, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.permute(self.order).flatten(1))


def parameters_of(module: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(variable[...]) for _, variable in nnx.state(module, nnx.Param).flat_state()]


@pytest.fixture
def pictures(rng):
    return rng.normal(size=(2, 3, 4, 4))


@pytest.fixture
def reference():
    torch.manual_seed(0)
    return TorchResidual()


def test_an_nnx_model_is_compared_layer_by_layer(pictures, reference, flax_promotes):
    candidate = Residual(nnx.Rngs(0))
    before = parameters_of(candidate)
    call = vars(nnx.Conv)["__call__"]
    report = parity.compare(candidate, reference, pictures)
    assert report.exit_code == 0, report
    rows = {(row.name, row.stage) for row in report.rows}
    assert {("blocks/1/bn", "forward"), ("blocks/0/conv", "backward:kernel"), ("head", "input")} <= rows
    # The model is as it was: in training mode, with its own values, and its classes call as they did.
    assert not candidate.blocks[0].bn.use_running_average
    assert vars(nnx.Conv)["__call__"] is call
    after = parameters_of(candidate)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_is_wrong_in_an_nnx_model_is_found_where_it_is(pictures, flax_promotes):
    torch.manual_seed(0)
    report = parity.compare(Residual(nnx.Rngs(0), epsilon=1e-3), TorchResidual(), pictures)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("blocks/0/bn", "forward")
    report = parity.compare(Residual(nnx.Rngs(0)), TorchResidual(channels_last=False), pictures)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("head", "input")


def test_an_nnx_models_own_weights_are_held_to_pytorchs(rng, flax_promotes):
    torch.manual_seed(0)
    reference, candidate = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).double(), None

    def converted(transpose: bool) -> nnx.Module:
        made = nnx.Sequential(
            nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64),
            nnx.relu,
            nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64),
        )
        for i in (0, 2):
            layer, (weight, bias) = made.layers[i], (p.detach().numpy() for p in reference[i].parameters())
            layer.kernel[...] = jnp.asarray(weight.T if transpose or i == 0 else weight)
            layer.bias[...] = jnp.asarray(bias)
        return made

    x, names = rng.normal(size=(2, 3)), {"layers/0": "0", "layers/2": "2"}
    candidate = converted(transpose=True)
    report = parity.compare(candidate, reference, x, variables=nnx.state(candidate), mapping=names)
    assert report.equal, report
    candidate = converted(transpose=False)
    report = parity.compare(candidate, reference, x, variables=nnx.state(candidate), mapping=names)
    assert next((row.name, row.stage) for row in report.rows if not row.equal) == ("layers/2", "weights:kernel")


def test_an_nnx_module_that_is_called_twice(rng, flax_promotes):
    class Twice(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.a = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x: Any, *, scale: float = 1.0) -> Any:
            return self.a(jnp.tanh(self.a(x))) * scale

    class TorchTwice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(torch.tanh(self.a(x))) * 2

    report = parity.compare(Twice(nnx.Rngs(0)), TorchTwice(), rng.normal(size=(2, 3)), flax_kwargs={"scale": 2.0})
    assert report.equal, report
    wrong = parity.compare(Twice(nnx.Rngs(0)), TorchTwice(), rng.normal(size=(2, 3)))
    assert wrong.first_divergence is not None
    assert (wrong.first_divergence.name, wrong.first_divergence.stage) == ("output", "input")


# --- functions ---------------------------------------------------------------------------------------------------


class TorchNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(48, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).permute(0, 2, 3, 1).flatten(1)
        return self.out(torch.tanh(self.hidden(x)))


def network(tree: Any, x: Any, *, slope: float = 0.0) -> Any:
    import jax

    kernel = tree["conv"]["w"]
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = x + tree["conv"]["b"][None, None, None]
    x = jnp.where(x > 0, x, slope * x).reshape(len(x), -1)
    for i, name in enumerate(("first", "second")):
        x = (jnp.tanh(x) if i else x) @ tree[name]["matrix"] + tree[name]["offset"][None]
    return x


@pytest.fixture
def torch_net():
    torch.manual_seed(0)
    return TorchNet().double()


def tree_of(reference: TorchNet) -> Any:
    state = {name: jnp.asarray(value.detach().numpy()) for name, value in reference.named_parameters()}
    return {
        "conv": {"w": state["conv.weight"].transpose(2, 3, 1, 0), "b": state["conv.bias"]},
        "first": {"matrix": state["hidden.weight"].T, "offset": state["hidden.bias"]},
        "second": {"matrix": state["out.weight"].T, "offset": state["out.bias"]},
    }


def test_a_function_of_a_tree_is_compared_from_end_to_end(rng, torch_net):
    report = parity.compare(network, torch_net, rng.normal(size=(2, 2, 4, 4)), variables=tree_of(torch_net))
    assert report.exit_code == 0, report
    assert {(row.name, row.torch_name) for row in report.rows} >= {
        ("second/matrix", "out.weight"),
        ("conv/b", "conv.bias"),
    }
    stages = [row.stage for row in report.rows]
    assert (stages.count("weights"), stages.count("gradient"), stages.count("outputs")) == (6, 7, 1)


def test_a_wrong_function_and_wrong_parameters_are_found(rng, torch_net):
    x, tree = rng.normal(size=(2, 2, 4, 4)), tree_of(torch_net)
    report = parity.compare(network, torch_net, x, variables=tree, flax_kwargs={"slope": 0.01})
    assert next(row.stage for row in report.rows if not row.equal) == "outputs"
    tree["second"]["matrix"] = tree["second"]["matrix"].T  # its values are out.weight's still
    report = parity.compare(network, torch_net, x, variables=tree)
    assert report.first_divergence is not None and report.first_divergence.stage == "outputs"
    tree["second"]["matrix"] = tree["second"]["matrix"].at[0, 0].add(1.0)
    report = parity.compare(network, torch_net, x, variables=tree)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("second/matrix", "weights")


def test_what_keeps_a_function_from_being_compared_is_said(rng, torch_net):
    x, tree = rng.normal(size=(2, 2, 4, 4)), tree_of(torch_net)
    with pytest.raises(CannotCompare, match="give its tree of them as `variables`"):
        parity.compare(network, torch_net, x)
    with pytest.raises(CannotCompare, match="'third/matrix', which isn't among conv/b"):
        parity.compare(network, torch_net, x, variables=tree, mapping={"third/matrix": "out.weight"})
    tree["second"]["offset"] = jnp.zeros(4)
    with pytest.raises(CannotCompare, match=r"second/offset \(4,\) could be hidden.bias, out.bias: say which"):
        parity.compare(network, torch_net, x, variables=tree)
    report = parity.compare(network, torch_net, x, variables=tree, mapping={"second/offset": "out.bias"})
    assert report.first_divergence is not None and report.first_divergence.name == "second/offset"
    with pytest.raises(CannotCompare, match="Residual is a class: give an instance"):
        parity.compare(Residual, torch_net, x)


def test_a_layer_that_jax_cannot_differentiate_costs_its_own_row(rng, flax_promotes):
    import jax

    class Counted(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * 2), (0, x))[1]

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.a, self.act, self.b = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), Counted(), nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return self.b(self.act(self.a(x)))

    class TorchCounted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 4

    original = nn.Sequential()
    for name, module in (("a", nn.Linear(3, 3)), ("act", TorchCounted()), ("b", nn.Linear(3, 2))):
        original.add_module(name, module)
    report = parity.compare(Net(), original, rng.normal(size=(2, 3)))
    [row] = [row for row in report.rows if row.name == "act" and row.stage == "backward"]
    assert row.verdict == "shape" and "can't differentiate it" in row.detail
    assert all(row.equal for row in report.rows if row.name in ("a", "b") and row.stage.startswith("backward"))
