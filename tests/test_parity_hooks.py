"""Gradients that are right where they are made and changed on their way: the parameter, or the layer, is named."""

from collections.abc import Callable
from typing import Any

import flax.linen as flax_nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import parity
from parity.reports.report import Report
from parity.reports.rows import Row


class FlaxNet(flax_nn.Module):
    """Three dense layers with tanh between; `change` may wrap parameters and values."""

    change: Callable[[Any, str], Any] = lambda x, where: x

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        for name in ("a", "b"):
            x = self.change(jnp.tanh(Dense(5, self.change, name=name)(x)), f"after {name}")
        return Dense(3, self.change, name="c")(x)


class Dense(flax_nn.Module):
    features: int
    change: Callable[[Any, str], Any]

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = self.param("kernel", flax_nn.initializers.zeros, (x.shape[-1], self.features), x.dtype)
        bias = self.param("bias", flax_nn.initializers.zeros, (self.features,), x.dtype)
        kernel, bias = self.change(kernel, f"{self.name}/kernel"), self.change(bias, f"{self.name}/bias")
        return x @ kernel + bias[None]


class TorchNet(nn.Module):
    def __init__(self, change: Callable[[Tensor, str], Tensor] = lambda x, where: x) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        for name in ("a", "b"):
            x = self.change(torch.tanh(self.get_submodule(name)(x)), f"after {name}")
        return self.c(x)


def compared(model: TorchNet | None = None, candidate: FlaxNet | None = None, dtype: str = "float64") -> Report:
    x = np.random.default_rng(0).normal(size=(6, 4))
    return parity.compare(candidate or FlaxNet(), model or fresh(), x, dtype=dtype)


def fresh(change: Callable[[Tensor, str], Tensor] = lambda x, where: x) -> TorchNet:
    torch.manual_seed(0)
    return TorchNet(change)


def first(report: Report) -> Row:
    assert report.first_divergence is not None, str(report)
    return report.first_divergence


HOOKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "doubled": (lambda g: 2 * g, "scaled by 2"),
    "lost": (torch.zeros_like, "it is lost"),
    "rounded": (lambda g: g.float().to(g.dtype), "rounded to float32"),
    "clipped": (lambda g: g.clamp(-0.125, 0.125), "clipped at 0.125"),
    "sparse": (lambda g: g * (torch.arange(g.numel()).reshape(g.shape) % 2), "values differ"),
}


@pytest.mark.parametrize(
    ("parameter", "kind"), [("b.weight", kind) for kind in HOOKS] + [("c.bias", "doubled"), ("c.bias", "lost")]
)
def test_a_hook_on_a_parameter_is_named(parameter: str, kind: str) -> None:
    hook, said = HOOKS[kind]
    model = fresh()
    model.get_parameter(parameter).register_hook(hook)
    row = first(compared(model))
    layer, name = parameter.split(".")
    assert (row.name, row.stage) == (layer, f"backward:{'kernel' if name == 'weight' else name}")
    assert row.cause_keys == ["gradient_hook"]
    assert row.causes[0].startswith("PyTorch: ")
    assert said in row.causes[0]


def halved(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(0.5)


def test_a_hook_after_the_gradient_was_added_is_named() -> None:
    model = fresh()
    model.b.weight.register_post_accumulate_grad_hook(halved)
    row = first(compared(model))
    assert (row.name, row.stage, row.cause_keys) == ("b", "backward:kernel", ["gradient_hook"])


def test_the_model_itself_keeps_its_hooks_and_gradients() -> None:
    model = fresh()
    model.b.weight.register_hook(lambda g: 2 * g)
    model.a.bias.grad = torch.ones(5)
    compared(model)
    assert len(model.b.weight._backward_hooks or {}) == 1
    assert torch.equal(model.a.bias.grad, torch.ones(5))


def quartered(module: nn.Module, inputs: Any, y: Tensor) -> None:
    y.register_hook(lambda g: g / 4)


def test_hooks_on_modules_are_named() -> None:
    model = fresh()
    model.b.register_full_backward_hook(lambda module, given, coming: (given[0] * 3,))
    row = first(compared(model))
    assert (row.name, row.stage, row.cause_keys) == ("b", "backward", ["gradient_scaled"])
    model = fresh()
    model.b.register_forward_hook(quartered)
    row = first(compared(model))
    assert (row.name, row.cause_keys) == ("b", ["gradient_scaled"])


def hooked(x: Tensor, where: str) -> Tensor:
    if where == "after a":
        x.register_hook(lambda g: g / 4)
    return x


def detached(x: Tensor, where: str) -> Tensor:
    return x.detach() if where == "after a" else x


@pytest.mark.parametrize(("change", "cause"), [(hooked, "gradient_scaled"), (detached, "gradient_missing")])
def test_a_gradient_changed_between_layers_is_named(change: Callable[[Tensor, str], Tensor], cause: str) -> None:
    row = first(compared(fresh(change)))
    assert (row.name, row.stage, row.cause_keys) == ("a", "cotangent", [cause])
    assert row.causes[0].startswith("PyTorch: ")


def scaled(factor: float) -> Callable[[Any], Any]:
    @jax.custom_vjp
    def same(x: Any) -> Any:
        return x

    same.defvjp(lambda x: (x, None), lambda _, g: (factor * g,))
    return same


@pytest.mark.parametrize(("where", "stage"), [("b/kernel", "backward:kernel"), ("c/bias", "backward:bias")])
@pytest.mark.parametrize(
    ("function", "cause"), [(scaled(2.0), "gradient_scaled"), (jax.lax.stop_gradient, "gradient_missing")]
)
def test_a_custom_gradient_of_a_flax_parameter_is_named(where: str, stage: str, function: Any, cause: str) -> None:
    candidate = FlaxNet(lambda x, place: function(x) if place == where else x)
    row = first(compared(candidate=candidate))
    assert (row.name, row.stage, row.cause_keys) == (where[0], stage, [cause])
    assert row.causes[0].startswith("JAX: ")


def test_a_gradient_changed_between_flax_layers_is_named() -> None:
    candidate = FlaxNet(lambda x, place: scaled(0.5)(x) if place == "after a" else x)
    row = first(compared(candidate=candidate))
    assert (row.name, row.stage, row.cause_keys) == ("a", "cotangent", ["gradient_scaled"])
    assert row.causes[0].startswith("JAX: ")


class DetachedLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.detach(), self.bias)


def test_a_parameter_that_pytorch_gives_no_gradient_is_named() -> None:
    model = fresh()
    model.b.__class__ = DetachedLinear
    row = first(compared(model))
    assert (row.name, row.stage, row.cause_keys) == ("b", "backward:kernel", ["gradient_missing"])
    assert row.causes[0].startswith("PyTorch: the parameter gets no gradient")


def test_a_frozen_parameter_is_told() -> None:
    model = fresh()
    model.b.weight.requires_grad_(False)
    report = compared(model)
    assert report.exit_code == 3
    assert any("b.weight" in text and "requires_grad is off" in text for text in report.not_exercised)
    # A model that is only there to be compared with may well be frozen as a whole.
    assert compared(fresh().requires_grad_(False)).exit_code == 0


def test_an_output_that_nothing_flows_back_from_is_named() -> None:
    class Cut(TorchNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    torch.manual_seed(0)
    row = first(compared(Cut()))
    assert (row.name, row.stage, row.cause_keys) == ("c", "cotangent", ["gradient_missing"])


class TorchLoop(nn.Module):
    """One layer, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.cell(x))
        return x


class FlaxLoop(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        cell = flax_nn.Dense(4, name="cell")
        for _ in range(3):
            x = jnp.tanh(cell(x))
        return x


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_hook_on_a_parameter_of_several_calls_is_named(dtype: str) -> None:
    torch.manual_seed(0)
    model, x = TorchLoop(), np.random.default_rng(0).normal(size=(6, 4))
    report = parity.compare(FlaxLoop(), model, x, dtype=dtype)
    assert report.exit_code == 0, str(report)
    assert sum(row.stage == "backward:kernel, all calls" for row in report.rows) == 1
    model.cell.weight.register_hook(lambda g: 2 * g)
    row = first(parity.compare(FlaxLoop(), model, x, dtype=dtype))
    assert (row.name, row.stage, row.cause_keys) == ("cell", "backward:kernel, all calls", ["gradient_hook"])


def test_what_only_the_whole_shows_names_the_parameter() -> None:
    """A transformation around a layer, which the layer by itself doesn't have."""
    doubled = scaled(2.0)

    class Wrapped(flax_nn.Module):
        @flax_nn.compact
        def __call__(self, x: Any) -> Any:
            mapped = flax_nn.map_variables(
                flax_nn.Dense, "params", lambda v: jax.tree.map(doubled, v), init=self.is_initializing()
            )
            return mapped(3, name="only")(x)

    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("only", nn.Linear(4, 3))
    x = np.random.default_rng(0).normal(size=(6, 4))
    report = parity.compare(Wrapped(), model, x)
    row = first(report)
    assert row.name == "only"
    assert "gradient" in row.stage or row.stage.startswith("backward")
    assert row.cause_keys == ["gradient_scaled"]


class TorchTied(nn.Module):
    """An embedding whose weights are the last layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)

    def forward(self, words: Tensor) -> Tensor:
        return torch.tanh(self.words(words)) @ self.words.weight.T


class FlaxTied(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, words: Any) -> Any:
        table = flax_nn.Embed(7, 4, param_dtype=jnp.float64, name="words")
        return table.attend(jnp.tanh(table(words)))


def test_a_parameter_that_code_between_the_layers_uses_is_no_alarm() -> None:
    torch.manual_seed(0)
    model, words = TorchTied().double(), np.array([[1, 5, 2], [0, 3, 3]])
    table = jnp.asarray(model.words.weight.detach().numpy())
    variables = {"params": {"words": {"embedding": table}}}
    report = parity.compare(FlaxTied(), model, words, flax_inputs=(words,), variables=variables)
    assert report.equal, str(report)
    model.words.weight.register_hook(lambda g: 2 * g)
    report = parity.compare(FlaxTied(), model, words, flax_inputs=(words,), variables=variables)
    row = first(report)
    assert (row.name, row.stage) == ("words", "gradient of embedding, end to end")
    assert row.cause_keys == ["gradient_scaled"]
