"""Layers of ports whose names, order and classes are other than their originals': which is which, found by itself."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen, nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare

pytestmark = pytest.mark.usefixtures("flax_promotes")
rngs = nnx.Rngs(0)
X = np.random.default_rng(1).normal(size=(3, 4))


def shaken(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.3)
    return module


class ShortcutFirst(nn.Module):
    """The shortcut is registered first and runs last; its shapes are those of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.sin()) + self.shortcut(x)


class ShortcutLast(linen.Module):
    late: bool = False
    wrong: bool = False

    @linen.compact
    def __call__(self, x: Any) -> Any:
        last = linen.Dense(4, name="conv3")(x) if self.late else None
        y = linen.Dense(4, name="conv1")(jnp.sin(x))
        y = jnp.tanh(linen.Dense(4, name="conv2")(jax.nn.gelu(y) if self.wrong else linen.relu(y)))
        return y + (linen.Dense(4, name="conv3")(x) if last is None else last)


@pytest.mark.parametrize("late", [False, True])
def test_layers_alike_are_told_apart_by_what_they_are_given(late: bool) -> None:
    # Three layers of one shape: by order alone each would get another one's weights.
    report = parity.compare(ShortcutLast(late), shaken(ShortcutFirst()), X)
    assert report.equal, str(report)
    partners = {row.name: row.torch_name for row in report.rows if row.stage == "forward"}
    assert partners == {"conv1": "inner.0", "conv2": "inner.2", "conv3": "shortcut"}
    assert report.mapping.layers == partners


def test_a_mistake_before_a_layer_does_not_change_its_partner() -> None:
    report = parity.compare(ShortcutLast(wrong=True), shaken(ShortcutFirst()), X)
    assert [row.name for row in report.divergences] == ["conv2"]
    assert report.divergences[0].torch_name == "inner.2"


def test_processes_of_their_own_find_the_same_partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In files of their own: each process then imports one framework.
    for name, imports, model in (
        ("port", "import jax, jax.numpy as jnp\nfrom flax import linen", ShortcutLast),
        ("original", "from torch import Tensor, nn", ShortcutFirst),
    ):
        (tmp_path / f"{name}.py").write_text(f"from typing import Any\n{imports}\n\n{inspect.getsource(model)}")
    monkeypatch.chdir(tmp_path)
    report = parity.compare("port:ShortcutLast", "original:ShortcutFirst", X)
    assert report.equal, str(report)
    assert {row.torch_name for row in report.rows if row.name == "conv3"} == {"shortcut"}
    assert report.mapping.layers["conv3"] == "shortcut"


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.up_proj, self.gate_proj = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.up_proj(x) * self.gate_proj(x).sigmoid()


class FlaxGated(linen.Module):
    names: tuple[str, str]

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Dense(4, name="entry")(x)
        gate = linen.sigmoid(linen.Dense(4, name=self.names[0])(x))
        # A fourth layer of that shape keeps the order from deciding.
        return linen.Dense(4, name=self.names[1])(x) * gate


class GatedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.block = nn.Linear(4, 4), Gated()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.block(x)))


class FlaxGatedTwice(linen.Module):
    names: tuple[str, str]

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = FlaxGated(self.names)(x)
        return linen.Dense(4, name="exit")(linen.LayerNorm(epsilon=1e-5, name="scaled")(x))


def test_layers_that_are_given_the_same_are_told_apart_by_name() -> None:
    report = parity.compare(FlaxGatedTwice(("gate_proj", "up_proj")), shaken(GatedTwice()), X)
    assert report.equal, str(report)
    with pytest.raises(CannotCompare, match=r"FlaxGated_0/a .* could be PyTorch block.up_proj, block.gate_proj, "):
        parity.compare(FlaxGatedTwice(("a", "b")), shaken(GatedTwice()), X)


class Scaled(nn.Module):
    """Twelve blocks that own a scale each."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Scale() for _ in range(12)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gamma = nn.LayerNorm(4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.norm(x)


class FlaxScale(nnx.Module):
    def __init__(self) -> None:
        self.norm, self.lambda1 = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs), nnx.Param(jnp.ones(4))

    def __call__(self, x: Any) -> Any:
        return x + self.lambda1[...] * self.norm(x)


class FlaxScaled(nnx.Module):
    def __init__(self) -> None:
        self.layers = nnx.List([FlaxScale() for _ in range(12)])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def test_owned_parameters_of_more_than_ten_blocks_are_counted_not_spelled() -> None:
    torch.manual_seed(0)
    report = parity.compare(FlaxScaled(), Scaled(), X)
    assert report.equal, str(report)
    assert {r.torch_name for r in report.rows if r.name == "layers/10/lambda1"} == {"blocks.10.gamma"}


class Idle(nn.Module):
    """With a head that isn't run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused = nn.Linear(4, 3), nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class FlaxIdle(nnx.Module):
    def __init__(self) -> None:
        self.trunk, self.other = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(9, 9, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.trunk(x)


def test_what_never_runs_needs_no_partner() -> None:
    report = parity.compare(FlaxIdle(), Idle(), X)
    assert not report.divergences, str(report)
    assert report.not_exercised == ["unused has parameters but never ran"]
    assert report.exit_code == 3
