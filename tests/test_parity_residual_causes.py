"""Mistakes in the code around residual connections: each named once, in Linen, however far a stream carries it."""

from __future__ import annotations

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
from parity.causes.layer.parameter_gradients import of_uses
from parity.reports.report import Report

pytestmark = pytest.mark.usefixtures("flax_promotes")

WIDTH, PLACES = 6, 5


class TorchBlock(nn.Module):
    """A gated layer behind a norm, scaled and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.gate = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.gamma * self.down(F.silu(self.gate(y)) * self.up(y))


class FlaxBlock(flax_nn.Module):
    bug: str = ""

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        bug = self.bug
        norm, up, gate, down = (
            flax_nn.LayerNorm(epsilon=1e-5, name="norm"),
            flax_nn.Dense(2 * WIDTH, name="up"),
            flax_nn.Dense(2 * WIDTH, name="gate"),
            flax_nn.Dense(WIDTH, name="down"),
        )
        gamma = self.param("gamma", flax_nn.initializers.ones, (WIDTH,))
        if bug == "post norm":
            return norm(x + gamma * down(jax.nn.silu(gate(x)) * up(x)))
        y = norm(x)
        u, h = up(y), gate(y)
        u, h = (h, u) if bug == "gate and up exchanged" else (u, h)
        function = {"gelu": jax.nn.gelu, "no function": lambda z: z, "relu": jax.nn.relu}.get(bug, jax.nn.silu)
        hidden = (
            function(h * u)
            if bug == "function of both"
            else function(h) + u
            if bug == "gate added"
            else function(h) * u
        )
        gamma = {"no gamma": 1.0, "gamma plus one": 1 + gamma}.get(bug, gamma)
        branch = gamma * down(hidden)
        kept = jax.random.bernoulli(jax.random.key(0), 0.8, branch.shape)
        branch = {"dropout": branch * kept / 0.8, "branch twice": 2 * branch, "branch missing": 0.0}.get(bug, branch)
        stream = {
            "no residual": 0.0,
            "residual behind the norm": y,
            "residual twice": 2 * x,
            "one percent": 1.01 * x,
        }.get(bug, x)
        out = stream + branch
        after = {
            "half": lambda z: 0.5 * z,
            "root": lambda z: z / np.sqrt(2),
            "minus": lambda z: 2 * x - z,
            "bfloat16": lambda z: z.astype(jnp.bfloat16).astype(z.dtype),
            "relu behind": jax.nn.relu,
            "float32": lambda z: z.astype(jnp.float32).astype(z.dtype),
            "a thousandth more": lambda z: z + 1e-3,
        }
        return after.get(bug, lambda z: z)(out)


class TorchStack(nn.Module):
    """Blocks, and a layer behind them."""

    depth = 1

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TorchBlock() for _ in range(self.depth)])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TorchDeep(TorchStack):
    depth = 3


class FlaxStack(flax_nn.Module):
    """Blocks of which the first has a bug."""

    bug: str = ""
    depth: int = 1

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        for i in range(self.depth):
            x = FlaxBlock(self.bug if i == 0 else "", name=f"blocks_{i}")(x)
        return flax_nn.Dense(3, name="head")(x)


def flax_deep(bug: str, name: str) -> FlaxStack:
    return FlaxStack(bug, depth=3, name=name)


class TorchSide(nn.Module):
    """Models side by side, on one input."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(models)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [model(x) for model in self.each]


class FlaxSide(flax_nn.Module):
    kind: Any
    bugs: tuple[str, ...]

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        return [self.kind(bug, name=f"each_{i}")(x) for i, bug in enumerate(self.bugs)]


def compared(kind: Any, theirs: type[nn.Module], bugs: tuple[str, ...], x: np.ndarray, **settings: Any) -> Report:
    torch.manual_seed(0)
    model = TorchSide([theirs() for _ in bugs])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return parity.compare(FlaxSide(kind, bugs), model, x, **settings)


KEYS = {
    "gate and up exchanged": "function_moved",
    "gelu": "activation_gelu_tanh",
    "no function": "activation_identity",
    "relu": "activation_relu",
    "function of both": "function_moved",
    "gate added": "sum_for_product",
    "no gamma": "scale_missing",
    "gamma plus one": "one_added",
    "branch twice": "term_twice",
    "branch missing": "term_missing",
    "no residual": "term_missing",
    "residual behind the norm": "residual_source",
    "residual twice": "term_twice",
    "one percent": "scaled",
    "half": "scaled",
    "root": "scaled",
    "minus": "term_sign",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "relu behind": "relu_added",
    "a thousandth more": "number_added",
    "dropout": "dropout_at_test",
}
INSIDE = {"gate and up exchanged", "gelu", "no function", "relu", "function of both", "gate added"}


def test_each_mistake_is_named_once() -> None:
    bugs = ("", *KEYS)
    x = np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
    report = compared(FlaxStack, TorchStack, bugs, x, gradients=False)
    found = {row.name: row for row in report.divergences}
    for i, bug in enumerate(bugs[1:], 1):
        place = f"each_{i}/blocks_0/down" if bug in INSIDE else f"each_{i}/head"
        row = found.pop(place)
        assert row.cause_keys == [KEYS[bug]], (bug, row.causes, row.detail)
    assert not found


def test_what_a_stream_carries_on_follows_forward_and_backward() -> None:
    x = np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
    report = compared(flax_deep, TorchDeep, ("one percent", "gelu"), x)
    assert [(row.name, row.stage) for row in report.divergences] == [
        ("each_0/blocks_1/norm", "input"),
        ("each_1/blocks_0/down", "input"),
    ]
    forward = {row.name: row.echo for row in report.rows if row.echo and row.stage == "input"}
    assert forward == {"each_0/blocks_2/norm": "each_0/blocks_1/norm", "each_0/head": "each_0/blocks_2/norm"}
    assert any(row.stage == "cotangent" and row.diverges for row in report.rows)


def test_a_norm_behind_instead_of_before_is_named() -> None:
    x = np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
    report = compared(FlaxStack, TorchStack, ("post norm",), x, gradients=False)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("each_0/blocks_0/norm", "input")
    assert first.cause_keys == ["order"]
    second = next(row for row in report.rows if row.name == "each_0/blocks_0/gate" and row.stage == "input")
    assert second.cause_keys == ["order"]


class TorchTokens(nn.Module):
    """Patches as tokens behind a class token, with positions; one of them, or their mean, decides."""

    mean = False

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos = nn.Parameter(torch.zeros(1, 7, WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos[:, :5])
        return self.head(x[:, 1:].mean(1) if self.mean else x[:, 0])


class TorchMean(TorchTokens):
    mean = True


class FlaxTokens(flax_nn.Module):
    bug: str = ""
    mean: bool = False

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        bug = self.bug
        x = flax_nn.Conv(WIDTH, (4, 4), strides=4, padding="VALID", name="patches")(x)
        x = (x.swapaxes(1, 2) if bug == "columns first" else x).reshape(len(x), -1, WIDTH)
        x = x * np.sqrt(WIDTH) if bug == "root of the width" else x
        cls = jnp.tile(self.param("cls", flax_nn.initializers.zeros, (1, 1, WIDTH)), (len(x), 1, 1))
        pos = self.param("pos", flax_nn.initializers.zeros, (1, 7, WIDTH))
        first = {"positions from one": 1, "positions from two": 2}.get(bug, 0)
        rows = pos[:, first : first + 5]
        if bug == "no positions":
            x = jnp.concatenate([cls, x], 1)
        elif bug == "no position for the class":
            x = jnp.concatenate([cls, x + rows[:, 1:]], 1)
        else:
            x = jnp.concatenate([x, cls] if bug == "class last" else [cls, x], 1) + rows
        x = flax_nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        own = x[:, 1:].mean(1) if self.mean else x[:, 0]
        taken = {"mean of all": x.mean(1), "last": x[:, -1], "first": x[:, 0], "sum": x[:, 1:].sum(1)}
        taken |= {"mean of patches": x[:, 1:].mean(1), "largest": x[:, 1:].max(1)}
        y = flax_nn.Dense(3, name="head")(taken.get(bug, own))
        return {"softmax": jax.nn.softmax(y), "backwards": y[:, ::-1], "scaled": 1.5 * y}.get(bug, y)


def flax_mean(bug: str, name: str) -> FlaxTokens:
    return FlaxTokens(bug, mean=True, name=name)


TOKENS = {
    "columns first": "joined_order",
    "root of the width": "scaled",
    "positions from one": "slice_offset",
    "positions from two": "slice_offset",
    "no positions": "term_missing",
    "no position for the class": "positions_part",
    "class last": "concatenation_order",
    "mean of all": "pool_mean",
    "last": "token_last",
    "mean of patches": "pool_without_first",
    "softmax": "softmax_added",
    "backwards": "mirrored",
    "scaled": "scaled",
}
MEANS = {"mean of all": "pool_all", "first": "pool_rest", "sum": "pool_sum", "largest": "pool_max"}


@pytest.mark.parametrize(("ours", "theirs", "keys"), [(FlaxTokens, TorchTokens, TOKENS), (flax_mean, TorchMean, MEANS)])
def test_tokens_and_positions(ours: Any, theirs: type[nn.Module], keys: dict[str, str]) -> None:
    bugs = ("", *keys)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    report = compared(ours, theirs, bugs, x, gradients=False)
    rows = [row for row in report.divergences if row.name != "output"]
    outputs = (row for row in report.rows if row.name == "output" and row.diverges)
    early = ("columns first", "root of the width", "class last")
    for i, bug in enumerate(bugs[1:], 1):
        at_norm = bug in early or "position" in bug
        if bug in ("softmax", "backwards", "scaled"):
            row = next(outputs)
        else:
            row = next(row for row in rows if row.name == f"each_{i}/{'norm' if at_norm else 'head'}")
            rows.remove(row)
        assert row.cause_keys == [keys[bug]], (bug, row.causes, row.detail)
    assert not rows


class TorchOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(torch.fft.fft(y, dim=-1).real + y.cumsum(1))


class FlaxOne(flax_nn.Module):
    bug: str = ""

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        y = flax_nn.Dense(WIDTH, name="first")(x)
        summed = {"noise": jnp.cumsum(y, 1) + jnp.sin(37 * y), "other axis": jnp.cumsum(y, 2)}.get(
            self.bug, jnp.cumsum(y, 1)
        )
        mixed = jnp.fft.fft(y, axis=1 if self.bug == "places" else -1).real
        if self.bug == "in float32":
            mixed = jnp.tanh(y.astype(jnp.float32)).astype(y.dtype) + mixed - jnp.tanh(y)
        return flax_nn.Dense(3, name="last")(mixed + summed)


def test_where_no_cause_is_shown_the_place_is() -> None:
    x = np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
    report = compared(FlaxOne, TorchOne, ("", "noise", "in float32"), x, gradients=False)
    one, two = report.divergences
    assert (one.name, one.causes) == ("each_1/last", [])
    assert "it starts from the output of each_1/first; PyTorch ran" in one.detail
    assert "fft_r2c" in one.detail
    assert two.cause_keys == ["float32"], two.detail
    assert "JAX: computes in float32 on the way" in two.causes[0]


class TorchWhole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


def whole(bug: str) -> Any:
    def function(tree: Any, x: Any) -> Any:
        apart = x - x.mean(-1, keepdims=True)
        y = apart / jnp.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5) * tree["norm"]["weight"] + tree["norm"]["bias"]
        hidden = jax.nn.gelu(y @ tree["up"]["weight"].T + tree["up"]["bias"], approximate=bug == "tanh")
        branch = hidden @ tree["down"]["weight"].T + tree["down"]["bias"]
        return {"no residual": branch, "twice": x + 2 * branch, "post norm": y + branch}.get(bug, x + branch)

    return function


def test_a_function_without_layers_is_explained_as_a_whole() -> None:
    torch.manual_seed(0)
    model, x = TorchWhole().double(), np.random.default_rng(0).normal(size=(2, PLACES, WIDTH))
    tree: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        layer, _, part = name.rpartition(".")
        tree.setdefault(layer, {})[part] = tensor.numpy()
    assert parity.compare(whole(""), model, x, variables=tree).equal
    keys = {"tanh": "activation_gelu_tanh", "no residual": "term_missing", "twice": "term_twice"}
    for bug, key in {**keys, "post norm": "residual_source"}.items():
        row = parity.compare(whole(bug), model, x, variables=tree, gradients=False).first_divergence
        assert row is not None
        assert row.cause_keys == [key], (bug, row.causes)
    assert "layer_norm" in row.causes[0] or "norm is added" in row.causes[0]


class TorchTied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(7, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(self.table(x))) @ self.table.weight.T


class FlaxTied(flax_nn.Module):
    scale: float = 1.0
    apart: bool = False

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        table = flax_nn.Embed(7, WIDTH, name="table")
        x = jnp.tanh(flax_nn.Dense(WIDTH, name="mix")(table(x)))
        return x @ jax.lax.stop_gradient(table.embedding).T if self.apart else table.attend(x) * self.scale


def test_a_table_that_is_used_again_between_layers() -> None:
    torch.manual_seed(0)
    model, x = TorchTied(), np.array([[1, 4, 2], [6, 0, 3]])
    assert parity.compare(FlaxTied(), model, x, gradients=False).equal
    first = parity.compare(FlaxTied(2.0), model, x, gradients=False).first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("output", ["scaled"])


def test_a_tied_weight_of_which_one_use_has_no_gradient() -> None:
    torch.manual_seed(0)
    report = parity.compare(FlaxTied(apart=True), TorchTied(), np.array([[1, 4, 2], [6, 0, 3]]))
    [row] = report.divergences
    assert (row.name, row.stage) == ("table", "gradient of embedding, end to end")
    assert row.cause_keys == ["tied_weight"]
    assert "only what table itself does with it counts" in row.causes[0]
    one, two = np.random.default_rng(0).normal(size=(2, 3, 4))
    [cause] = of_uses(one + two, two, one, 1e-14, "table")
    assert "only what is done with it elsewhere" in cause.text
    assert not of_uses(one + two, one + 2 * two, one, 1e-14, "table")


SAME = 4  # places and channels


class TorchMixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.last = nn.LayerNorm(SAME), nn.Linear(SAME, 5), nn.Linear(5, SAME)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.mix(self.norm(x).transpose(1, 2))))


class FlaxMixed(flax_nn.Module):
    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        x = flax_nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        return flax_nn.Dense(SAME, name="last")(flax_nn.relu(flax_nn.Dense(5, name="mix")(x)))


def test_as_many_places_as_channels_hide_no_exchange_of_the_two() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(2, SAME, SAME))
    report = parity.compare(FlaxMixed(), TorchMixed(), x, gradients=False)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("mix", "input", ["axes_order"])
