"""Recurrent layers: PyTorch's stock ones beside Flax's, by equal results, planted bugs, and PyTorch's own values."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare
from parity.kinds import registry, torch_leaves
from parity.kinds.layer import Recorded
from parity.kinds.recurrence import Recurrence
from parity.reference import torch_recurrent

INPUTS, SIZE, STEPS = 3, 4, 3
X = np.random.default_rng(0).normal(size=(2, STEPS, INPUTS))


class Torch(nn.Module):
    """A stock layer, and a Linear layer on what it gives."""

    def __init__(self, made: Any = nn.LSTM, inputs: int = INPUTS, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.over = made(inputs, SIZE, **{"batch_first": True, **settings})
        self.head = nn.Linear(SIZE * (1 + self.over.bidirectional), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.over(x)[0])


class Linen(linen.Module):
    """One direction, or both, of one layer."""

    cell: type
    both: bool = False
    settings: tuple[tuple[str, Any], ...] = ()

    @linen.compact
    def __call__(self, x: Any) -> Any:
        made = [linen.RNN(self.cell(SIZE, **dict(self.settings))) for _ in range(1 + self.both)]
        y = linen.Bidirectional(made[0], made[1])(x) if self.both else made[0](x)
        return linen.Dense(2, name="head")(y)


class Nnx(nnx.Module):
    """As many layers as wanted, in one direction or both."""

    def __init__(
        self, cell: Callable[..., Any], layers: int = 1, both: bool = False, inputs: int = INPUTS, **settings: Any
    ) -> None:
        rngs = nnx.Rngs(0)

        def made(inputs: int) -> Any:
            return nnx.RNN(cell(inputs, SIZE, rngs=rngs), **settings)

        widths = [inputs, *[SIZE * (1 + both)] * (layers - 1)]
        self.layers: Any = nnx.List([nnx.Bidirectional(made(n), made(n)) if both else made(n) for n in widths])
        self.head = nnx.Linear(SIZE * (1 + both), 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


EQUAL: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module], str]] = {
    "nnx LSTM, both directions": (
        lambda: Nnx(nnx.OptimizedLSTMCell, both=True), lambda: Torch(bidirectional=True), "float64"
    ),
    "Linen LSTM in float32": (lambda: Linen(linen.OptimizedLSTMCell), Torch, "float32"),
    "Linen GRU": (lambda: Linen(linen.GRUCell), lambda: Torch(nn.GRU), "float64"),
    "nnx GRU without biases": (lambda: Nnx(nnx.GRUCell), lambda: Torch(nn.GRU, bias=False), "float64"),
    "two layers of nnx's simple cell, in float32": (
        lambda: Nnx(nnx.SimpleCell, layers=2), lambda: Torch(nn.RNN, num_layers=2), "float32"
    ),
    "Linen simple cell with ReLU": (
        lambda: Linen(linen.SimpleCell, settings=(("activation_fn", jax.nn.relu),)),
        lambda: Torch(nn.RNN, nonlinearity="relu"), "float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_stock_layers_are_equal_forward_and_backward(name: str) -> None:
    flax, theirs, dtype = EQUAL[name]
    report = parity.compare(flax(), theirs(), X, dtype=dtype)
    assert report.exit_code == 0, report.text(all_rows=True)
    stages = {row.stage for row in report.rows if row.kind in ("lstm", "gru", "simple_recurrence")}
    assert {"forward", "backward", "backward:kernel_ih", "backward:kernel_hh", "forward at ties"} <= stages
    assert ("backward:bias" in stages) == ("without" not in name)
    assert max(row.fraction for row in report.rows) < 0.6


def test_whole_models_give_their_last_states_too() -> None:
    torch.manual_seed(0)
    both = nnx.Bidirectional(*[nnx.RNN(nnx.LSTMCell(INPUTS, SIZE, rngs=nnx.Rngs(0))) for _ in range(2)])
    theirs = nn.LSTM(INPUTS, SIZE, batch_first=True, bidirectional=True)
    report = parity.compare(both, theirs, X, gradients=False)
    assert report.equal, report
    assert sum(row.name == "output" for row in report.rows) == 5  # the sequence, and h and c of each direction
    one = parity.compare(linen.RNN(linen.GRUCell(SIZE)), nn.GRU(INPUTS, SIZE), X, flax_inputs=(X.swapaxes(0, 1),))
    assert one.equal, one


class TorchDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.cell = nn.LSTM(INPUTS, SIZE, batch_first=True), nn.LSTMCell(SIZE, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.encoder(x)
        h, c, y = h[0], c[0], h[0]
        for _ in range(2):
            h, c = self.cell(y, (h, c))
            y = h
        return y


class NnxDecoder(nnx.Module):
    exchanged = False

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.encoder = nnx.RNN(nnx.LSTMCell(INPUTS, SIZE, rngs=rngs), return_carry=True)
        self.cell = nnx.LSTMCell(SIZE, SIZE, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        (c, h), _ = self.encoder(x)
        carry, y = (h, c) if self.exchanged else (c, h), h
        for _ in range(2):
            carry, y = self.cell(carry, y)
        return y


def test_cells_and_last_states() -> None:
    report = parity.compare(NnxDecoder(), TorchDecoder(), X)
    assert report.exit_code == 0, report.text(all_rows=True)
    assert sum(row.name == "cell" and row.stage == "forward" for row in report.rows) == 2


def test_states_in_another_order_are_named() -> None:
    model = NnxDecoder()
    model.exchanged = True
    first = parity.compare(model, TorchDecoder(), X, gradients=False).first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("cell", "input", ["state_exchanged"])


class Planted(nnx.LSTMCell):
    """An LSTM written out, with what may go wrong."""

    def __call__(self, carry: Any, x: Any) -> Any:
        c, h = carry
        parts = [getattr(self, f"i{k}")(x) + getattr(self, f"h{k[0]}")(h) for k in ("i", "f_", "g", "o")]
        return self.after(c, h, *parts)

    def after(self, c: Any, h: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
        i, f, g, o = nnx.sigmoid(i), nnx.sigmoid(f), jnp.tanh(g), nnx.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (c, h), h


class GateOrder(Planted):
    def after(self, c: Any, h: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
        return super().after(c, h, i, f, o, g)


class ForgetBias(Planted):
    def after(self, c: Any, h: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
        return super().after(c, h, i, f + 1, g, o)


class NoTanh(Planted):
    def after(self, c: Any, h: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
        c = nnx.sigmoid(f) * c + nnx.sigmoid(i) * jnp.tanh(g)
        h = nnx.sigmoid(o) * c
        return (c, h), h


class NoBias(Planted):
    def __call__(self, carry: Any, x: Any) -> Any:
        c, h = carry
        layers = [(self.ii, self.hi), (self.if_, self.hf), (self.ig, self.hg), (self.io, self.ho)]
        return self.after(c, h, *[of_x(x) + h @ of_h.kernel[...] for of_x, of_h in layers])


class Exchanged(Planted):
    def __call__(self, carry: Any, x: Any) -> Any:
        c, h = carry
        layers = [(self.ii, self.hi), (self.if_, self.hf), (self.ig, self.hg), (self.io, self.ho)]
        return self.after(c, h, *[of_h(x) + of_x(h) for of_x, of_h in layers])


class Detached(Planted):
    def __call__(self, carry: Any, x: Any) -> Any:
        return super().__call__(jax.lax.stop_gradient(carry), x)


class PlantedGRU(linen.GRUCell):
    """A GRU written out, with what may go wrong."""

    bug: str = ""

    @linen.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, x = carry, inputs
        i = {k: linen.Dense(SIZE, name=f"i{k}") for k in "rzn"}
        s = {k: linen.Dense(SIZE, name=f"h{k}", use_bias=k == "n") for k in "rzn"}
        r, z = linen.sigmoid(i["r"](x) + s["r"](h)), linen.sigmoid(i["z"](x) + s["z"](h))
        if self.bug == "exchanged":
            r, z = z, r
        inner = s["n"](r * h) if self.bug == "before" else r * s["n"](h)
        if self.bug == "outside":
            inner = inner + (1 - r) * s["n"].variables["params"]["bias"][None]
        n = jnp.tanh(i["n"](x) + inner)
        h = z * n + (1 - z) * h if self.bug == "inverted" else (1 - z) * n + z * h
        return h, h


PLANTED: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module], str]] = {
    "gates in another order": (lambda: Nnx(GateOrder), Torch, "gate_order"),
    "forget bias": (lambda: Nnx(ForgetBias), Torch, "forget_bias"),
    "c without its tanh": (lambda: Nnx(NoTanh), Torch, "output_no function"),
    "no bias": (lambda: Nnx(NoBias), Torch, "bias_missing"),
    "weights exchanged": (
        lambda: Nnx(Exchanged, inputs=SIZE), lambda: Torch(inputs=SIZE, bias=False), "weights_exchanged"
    ),
    "ReLU for tanh": (
        lambda: Linen(linen.SimpleCell, settings=(("activation_fn", jax.nn.relu),)),
        lambda: Torch(nn.RNN), "nonlinearity_relu",
    ),
    "residual": (
        lambda: Linen(linen.SimpleCell, settings=(("residual", True),)), lambda: Torch(nn.RNN), "residual"
    ),
    "nnx's GRU has no b_hn": (lambda: Nnx(nnx.GRUCell), lambda: Torch(nn.GRU), "bias_hn_missing"),
    **{
        name: (lambda bug=bug: Linen(PlantedGRU, settings=(("bug", bug),)), lambda: Torch(nn.GRU), key)
        for name, bug, key in (
            ("r and z exchanged", "exchanged", "gate_order"), ("reset before", "before", "reset_before"),
            ("b_hn outside", "outside", "bias_hn_outside"), ("z inverted", "inverted", "update_inverted"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_named(name: str) -> None:
    flax, theirs, key = PLANTED[name]
    x = np.random.default_rng(1).normal(size=(2, STEPS, SIZE)) if "weights" in name else X
    first = parity.compare(flax(), theirs(), x, gradients=False).first_divergence
    assert first is not None
    assert (first.torch_name, first.stage) == ("over.l0", "forward")
    assert first.cause_keys == [key], first.causes


def test_a_detached_state_is_named() -> None:
    report = parity.compare(Nnx(Detached), Torch(), X)
    first = report.first_divergence
    assert first is not None
    assert (first.torch_name, first.stage, first.cause_keys) == ("over.l0", "backward", ["state_detached"])


def test_axes_and_directions_are_named() -> None:
    swapped = Nnx(nnx.LSTMCell, time_major=True)
    first = parity.compare(swapped, Torch(), X, gradients=False).first_divergence
    assert first is not None
    assert (first.torch_name, first.stage, first.cause_keys) == ("over.l0", "input", ["axes_exchanged"])
    reversed_ = Nnx(nnx.LSTMCell, reverse=True, keep_order=True)
    first = parity.compare(reversed_, Torch(), X, gradients=False).first_divergence
    assert first is not None
    assert (first.torch_name, first.stage, first.cause_keys) == ("over.l0", "input", ["direction"])


class HalfReversed(Nnx):
    """Two directions put together by hand, without `keep_order`."""

    def __call__(self, x: Any) -> Any:
        both = self.layers[0]
        return self.head(jnp.concatenate([both.forward_rnn(x), both.backward_rnn(x, reverse=True)], -1))


def test_an_order_that_is_not_kept_is_named() -> None:
    model = HalfReversed(nnx.LSTMCell, both=True)
    first = parity.compare(model, Torch(bidirectional=True), X, gradients=False).first_divergence
    assert first is not None
    assert (first.name, first.stage, first.cause_keys) == ("head", "input", ["order_reversed"])


def converted(model: Nnx, layer: nn.RNNBase, mistake: str) -> Any:
    """The model's variables, from PyTorch's, by a converter with some mistake."""
    state = {name.removesuffix("_l0"): value.detach().double().numpy() for name, value in layer.named_parameters()}
    kernel, bias = state["weight_ih"], state["bias_ih"] + state["bias_hh"]
    if mistake == "gates":
        kernel = np.concatenate([kernel[: 2 * SIZE], kernel[3 * SIZE :], kernel[2 * SIZE : 3 * SIZE]])
    elif mistake == "b_hh":
        bias = state["bias_ih"]
    elif mistake == "forget":
        bias = bias + np.repeat([0.0, 1, 0, 0], SIZE)
    cell: Any = model.layers[0].cell
    cell.dense_i.kernel, cell.dense_h.bias = nnx.Param(jnp.asarray(kernel.T)), nnx.Param(jnp.asarray(bias))
    cell.dense_h.kernel = nnx.Param(jnp.asarray(state["weight_hh"].T))
    return nnx.state(model)


def with_head(model: Nnx, theirs: Torch) -> Nnx:
    model.head.kernel = nnx.Param(jnp.asarray(theirs.head.weight.detach().double().numpy().T))
    model.head.bias = nnx.Param(jnp.asarray(theirs.head.bias.detach().double().numpy()))
    return model


@pytest.mark.parametrize(
    ("mistake", "stage", "key"),
    [
        ("", "", ""),
        ("gates", "weights:kernel_ih", "gate_order"),
        ("b_hh", "weights:bias", "bias_hh_missing"),
        ("forget", "weights:bias", "forget_bias"),
    ],
)
def test_weights_of_its_own_are_held_to_pytorchs(mistake: str, stage: str, key: str) -> None:
    theirs = Torch()
    model = with_head(Nnx(nnx.OptimizedLSTMCell), theirs)
    variables = converted(model, theirs.over, mistake)
    report = parity.compare(model, theirs, X, variables=variables, gradients=False)
    first = report.first_divergence
    if not mistake:
        assert report.equal, report
        return
    assert first is not None
    assert (first.stage, first.cause_keys) == (stage, [key])


def stock(made: Any, **settings: Any) -> nn.RNNBase:
    torch.manual_seed(1)
    return made(INPUTS, SIZE, **settings).double()


@pytest.mark.parametrize(
    ("layer", "leaf"),
    [
        (stock(nn.LSTM), torch_recurrent.LSTMRecurrence),
        (stock(nn.GRU), torch_recurrent.GRURecurrence),
        (stock(nn.RNN), torch_recurrent.ElmanRecurrence),
        (stock(nn.RNN, nonlinearity="relu"), torch_recurrent.ElmanRecurrence),
    ],
    ids=["lstm", "gru", "tanh", "relu"],
)
def test_layers_in_numpy_are_pytorchs(layer: nn.RNNBase, leaf: type, rng: np.random.Generator) -> None:
    """Values, and the derivatives written out; the gradients of PyTorch's two biases are the same."""
    x, states = (
        rng.normal(size=(STEPS, 2, INPUTS)),
        [rng.normal(size=(2, SIZE)) for _ in range(1 + (leaf.__name__[0] == "L"))],
    )
    made = leaf(layer, "_l0")
    weights = {name: value.numpy() for name, value in torch_leaves.state_of(made).items()}
    written = registry.layer(Recorded(leaf.__name__, torch_leaves.settings_of(made), x, weights, more=tuple(states)))
    assert isinstance(written, Recurrence)
    given = torch.from_numpy(x).requires_grad_()
    hidden = [torch.from_numpy(state)[None] for state in states]
    y, last = layer(given, tuple(hidden) if len(hidden) > 1 else hidden[0])
    packed = torch.cat([y, last[1]]) if len(hidden) > 1 else y
    np.testing.assert_allclose(written.compute(), packed.detach().numpy(), rtol=1e-12, atol=1e-14)
    g = rng.normal(size=tuple(packed.shape))
    names = [name for name, _ in layer.named_parameters()]
    of_x, *rest = torch.autograd.grad(packed, [given, *layer.parameters()], torch.from_numpy(g))
    of = {name.removesuffix("_l0"): gradient.numpy() for name, gradient in zip(names, rest, strict=True)}
    np.testing.assert_allclose(written.input_gradient(g), of_x.numpy(), rtol=1e-11, atol=1e-13)
    for name, theirs in (("weight_ih",) * 2, ("weight_hh",) * 2, ("bias", "bias_ih")):
        np.testing.assert_allclose(written.weight_gradient(g, name), of[theirs], rtol=1e-11, atol=1e-13)  # type: ignore[arg-type]
    if "bias_hn" in weights:
        np.testing.assert_allclose(written.backward(g)["bias_hn"], of["bias_hh"][2 * SIZE :], rtol=1e-11, atol=1e-13)
    else:
        np.testing.assert_allclose(of["bias_ih"], of["bias_hh"], rtol=1e-12)


class Scanned(linen.Module):
    """A cell that `nn.scan` was applied to."""

    dtype: Any = jnp.float64

    @linen.compact
    def __call__(self, x: Any) -> Any:
        over = linen.scan(
            linen.LSTMCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )(SIZE, name="over")
        zero = jnp.zeros((len(x), SIZE), self.dtype)
        return linen.Dense(2, name="head")(over((zero, zero), x)[1])


def test_a_scanned_cell_is_refused_with_what_to_do() -> None:
    with pytest.raises(CannotCompare, match="Python loop"):
        parity.compare(Scanned(), Torch(), X)
    with pytest.raises(CannotCompare, match=r"can't run by itself on inputs of .*, scan body function carry input"):
        parity.compare(Scanned(dtype=jnp.float32), Torch(), X)


class ByHand(nnx.Module):
    """A loop over time with parameters of its own, as JAX's users write it."""

    reset: float = 0.0

    def __init__(self, layer: nn.RNNBase) -> None:
        state = {name.removesuffix("_l0"): p.detach().double().numpy() for name, p in layer.named_parameters()}
        self.wx, self.wh = nnx.Param(jnp.asarray(state["weight_ih"].T)), nnx.Param(jnp.asarray(state["weight_hh"].T))
        self.b = nnx.Param(jnp.asarray(state["bias_ih"] + state["bias_hh"]))

    def __call__(self, x: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x @ self.wx[...] + h @ self.wh[...] + self.b[...][None], 4, -1)
            c = nnx.sigmoid(f + self.reset) * c + nnx.sigmoid(i) * jnp.tanh(g)
            h = nnx.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[0], SIZE), x.dtype)
        return jnp.moveaxis(jax.lax.scan(step, (zero, zero), jnp.moveaxis(x, 1, 0))[1], 0, 1)


def test_a_loop_by_hand_is_compared_as_a_whole() -> None:
    theirs = stock(nn.LSTM, batch_first=True)
    model = ByHand(theirs)
    report = parity.compare(model, theirs, X, variables=nnx.state(model))
    assert report.exit_code == 3, report
    assert "the models are compared as wholes" in report.not_exercised[0]
    assert {row.name for row in report.rows} == {"wx", "wh", "b", "output 0", "input 0"}
    model.reset = 1.0
    assert parity.compare(model, theirs, X, variables=nnx.state(model)).exit_code == 1
    with pytest.raises(CannotCompare, match="give the module's own variables"):
        parity.compare(model, theirs, X)


class Own(linen.RNNCellBase):
    """A cell that the harness doesn't know."""

    features: int

    @linen.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h = linen.tanh(linen.Dense(SIZE, name="read")(inputs)) - linen.Dense(SIZE, name="keep")(carry)
        return h, h

    @linen.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Any:
        return jnp.zeros((*input_shape[:-1], SIZE))

    @property
    def num_feature_axes(self) -> int:
        return 1


class TorchOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.keep, self.head = nn.Linear(INPUTS, SIZE), nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, found = x.new_zeros(len(x), SIZE), []
        for t in range(x.shape[1]):
            h = torch.tanh(self.read(x[:, t])) - self.keep(h)
            found.append(h)
        return self.head(torch.stack(found, 1))


def test_a_cell_that_is_not_known_runs_step_by_step() -> None:
    report = parity.compare(Linen(Own), TorchOwn(), X, gradients=False)
    assert report.equal, report
    assert sum(row.torch_name == "keep" and row.stage == "forward" for row in report.rows) == STEPS


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return x + linen.Dense(SIZE, name="up")(linen.tanh(x))


class Stack(linen.Module):
    """Blocks scanned over, or one after the other and rematerialised."""

    scanned: bool = True

    @linen.compact
    def __call__(self, x: Any) -> Any:
        if not self.scanned:
            for i in range(3):
                x = linen.remat(LinenBlock)(name=f"blocks_{i}")(x)
            return x
        over = linen.scan(
            lambda block, x, _: (block(x), None), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return over(LinenBlock(name="blocks"), x, None)[0]


class TorchStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(SIZE, SIZE)}) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block["up"](torch.tanh(x))  # type: ignore[index]
        return x


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(SIZE, SIZE, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.up(jnp.tanh(x))


class NnxStack(nnx.Module):
    def __init__(self) -> None:
        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def made(rngs: nnx.Rngs) -> NnxBlock:
            return NnxBlock(rngs)

        self.blocks = made(nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def over(x: Any, block: NnxBlock) -> Any:
            return block(x)

        return over(x, self.blocks)


@pytest.mark.parametrize("made", [Stack, NnxStack])
def test_scanned_blocks_are_compared_as_a_whole(made: Callable[[], Any], rng: np.random.Generator) -> None:
    theirs, x = TorchStack(), rng.normal(size=(2, SIZE))
    linears = [block["up"] for block in theirs.blocks]  # type: ignore[index]
    kernel = jnp.asarray(np.stack([each.weight.detach().double().numpy().T for each in linears]))
    bias = jnp.asarray(np.stack([each.bias.detach().double().numpy() for each in linears]))
    variables: Any = {"params": {"blocks": {"up": {"kernel": kernel, "bias": bias}}}}
    report = parity.compare(made(), theirs, x, variables=variables)
    assert report.exit_code == 3, report.text(all_rows=True)
    assert {row.torch_name for row in report.rows} >= {"blocks.*.up.weight", "blocks.*.up.bias"}
    variables["params"]["blocks"]["up"]["bias"] = bias[::-1]
    assert parity.compare(made(), theirs, x, variables=variables).exit_code == 1
    with pytest.raises(CannotCompare, match="Python loop"):
        parity.compare(made(), theirs, x)


def test_rematerialised_layers_are_compared_one_by_one(rng: np.random.Generator) -> None:
    report = parity.compare(Stack(scanned=False), TorchStack(), rng.normal(size=(2, SIZE)))
    assert report.exit_code == 0, report
    assert sum(row.stage == "backward:kernel" for row in report.rows) == 3


def test_what_is_not_compared_is_refused_by_name() -> None:
    class Lengths(Nnx):
        def __call__(self, x: Any) -> Any:
            return self.head(self.layers[0](x, seq_lengths=jnp.array([1, 2])))

    with pytest.raises(CannotCompare, match=r"layers/0 \(Flax\) gets seq_lengths: compare sequences of one length"):
        parity.compare(Lengths(nnx.LSTMCell), Torch(), X)
    projected = Torch()
    projected.over = nn.LSTM(INPUTS, SIZE, proj_size=2, batch_first=True)
    with pytest.raises(CannotCompare, match=r"LSTM at 'over' \(PyTorch\) can't be compared: with hooks, proj_size"):
        parity.compare(Nnx(nnx.LSTMCell), projected, X)
