"""Stock attention of Flax, whose projections keep heads apart, against PyTorch's Linear layers and its attention."""

from __future__ import annotations

import copy
from typing import Any

import flax.linen as flax_nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare
from parity.kinds import layouts, weights
from parity.reference import torch_attention, torch_stand_ins

HEADS, DIM, LENGTH = 2, 4, 5
WIDTH = HEADS * DIM
CAUSAL = np.tril(np.ones((LENGTH, LENGTH), bool))
PADDING = (np.arange(LENGTH) < np.array([[5], [3]]))[:, None, None]  # (N, 1, 1, T), True where there is something
MASKS = {"none": None, "causal": CAUSAL[None, None], "padding": PADDING, "both": PADDING & CAUSAL}


class TorchAttention(nn.Module):
    """Four Linear layers, and heads that are split from the last axis."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module

    def __init__(self, mask: Any = None, width: int = WIDTH, names: str = "qkvo") -> None:
        super().__init__()
        made = {name: nn.Linear(width, width) for name in names}
        for name in names:  # in this order
            setattr(self, "out_proj" if name == "o" else f"{name}_proj", made[name])
        self.mask = None if mask is None else torch.tensor(mask)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        mixed = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v), attn_mask=self.mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class CausalTorchAttention(TorchAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.q_proj(x)), self.heads(self.k_proj(x)), self.heads(self.v_proj(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class NnxAttention(nnx.Module):
    def __init__(self, mask: Any = None, **settings: Any) -> None:
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(0), **settings)
        self.mask = nnx.data(None) if mask is None else nnx.Variable(jnp.asarray(mask))

    def __call__(self, x: Any) -> Any:
        return self.attention(x, mask=None if self.mask is None else self.mask[...])


@pytest.fixture
def x() -> np.ndarray:
    torch.manual_seed(0)
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


@pytest.mark.parametrize(
    ("mask", "dtype"), [("none", "float64"), ("causal", "float64"), ("both", "float64"), ("padding", "float32")]
)
def test_linen(mask: str, dtype: str, x: np.ndarray) -> None:
    module, theirs = flax_nn.MultiHeadDotProductAttention(HEADS), TorchAttention(MASKS[mask])
    report = parity.compare(module, theirs, x, dtype=dtype, flax_kwargs={"mask": MASKS[mask]})
    assert report.exit_code == 0, str(report)
    gradients = {row.name for row in report.rows if row.stage == "backward:kernel"}
    assert gradients == {"query", "key", "value", "out"}
    assert {row.name for row in report.rows if row.stage == "cotangent"} >= {"query", "key", "value", "input"}


def in_full(q: Any, k: Any, v: Any, mask: Any = None, **settings: Any) -> Any:
    """nnx's own attention takes its softmax in float32, even of float64."""
    return flax_nn.dot_product_attention(q, k, v, mask=mask)


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nnx(dtype: str, x: np.ndarray) -> None:
    own = {"attention_fn": in_full} if dtype == "float64" else {}
    report = parity.compare(NnxAttention(MASKS["both"], **own), TorchAttention(MASKS["both"]), x, dtype=dtype)
    assert report.exit_code == 0, str(report)
    assert {row.name for row in report.rows if row.stage == "backward:bias"} == {
        f"attention/{name}" for name in ("query", "key", "value", "out")
    }


@pytest.mark.usefixtures("flax_promotes")
def test_the_float32_softmax_of_nnx_shows_in_float64(x: np.ndarray) -> None:
    report = parity.compare(NnxAttention(), TorchAttention(), x, gradients=False)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("attention/out", "input")
    assert report.first_divergence.max_error < 1e-6


def test_self_attention_in_a_module_pairs_by_role_whatever_the_order(x: np.ndarray) -> None:
    class Ours(flax_nn.Module):
        @flax_nn.compact
        def __call__(self, x: Any) -> Any:
            return flax_nn.Dense(3)(flax_nn.SelfAttention(HEADS)(x, CAUSAL[None, None]))

    theirs = nn.Sequential()
    theirs.add_module("mixer", CausalTorchAttention(names="kvqo"))
    theirs.add_module("head", nn.Linear(WIDTH, 3))
    report = parity.compare(Ours(), theirs, x, gradients=False)
    assert report.exit_code == 0, str(report)
    assert {"mixer.q_proj", "mixer.k_proj"} <= {row.torch_name for row in report.rows}


def test_own_variables_are_held_to_pytorchs(x: np.ndarray) -> None:
    module, theirs = flax_nn.MultiHeadDotProductAttention(HEADS), TorchAttention()
    state = {name: value.detach().numpy().astype(np.float64) for name, value in theirs.state_dict().items()}
    params = {}
    for ours, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        kernel, bias = state[f"{name}.weight"].T, state[f"{name}.bias"]
        shape = (HEADS, DIM, WIDTH) if ours == "out" else (WIDTH, HEADS, DIM)
        params[ours] = {"kernel": kernel.reshape(shape), "bias": bias.reshape(shape[1:] if ours != "out" else -1)}
    variables = {"params": params}
    assert parity.compare(module, theirs, x, variables=variables, gradients=False).exit_code == 0
    params["query"]["kernel"] = state["q_proj.weight"].T.reshape(WIDTH, DIM, HEADS).swapaxes(1, 2)
    report = parity.compare(module, theirs, x, variables=variables, gradients=False)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("query", "weights:kernel")


def test_a_query_transposed_before_it_is_split_is_named(x: np.ndarray) -> None:
    module, theirs = flax_nn.MultiHeadDotProductAttention(HEADS), TorchAttention()
    theirs.q_proj = Twisted(WIDTH, WIDTH)
    report = parity.compare(module, theirs, x)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("query", "forward")
    assert "kernel_transposed" in report.first_divergence.cause_keys, str(report)


class Twisted(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.T, self.bias)


def unscaled(q: Any, k: Any, v: Any, mask: Any = None, **settings: Any) -> Any:
    return flax_nn.dot_product_attention(q * np.sqrt(DIM), k, v, mask=mask, **settings)


def exchanged(q: Any, k: Any, v: Any, mask: Any = None, **settings: Any) -> Any:
    return flax_nn.dot_product_attention(k, q, v, mask=mask, **settings)


def interleaved(q: Any, k: Any, v: Any, mask: Any = None, **settings: Any) -> Any:
    q, k, v = (x.reshape(*x.shape[:2], DIM, HEADS).swapaxes(2, 3) for x in (q, k, v))
    return flax_nn.dot_product_attention(q, k, v, mask=mask, **settings)


def unmerged(q: Any, k: Any, v: Any, mask: Any = None, **settings: Any) -> Any:
    """Heads and their values are exchanged as they are put together."""
    mixed = flax_nn.dot_product_attention(q, k, v, mask=mask, **settings)
    return mixed.swapaxes(2, 3).reshape(mixed.shape)


def off_by_one(q: Any, k: Any, v: Any, mask: Any, **settings: Any) -> Any:
    return flax_nn.dot_product_attention(q, k, v, mask=jnp.tril(jnp.ones_like(mask), 1), **settings)


def inverted(q: Any, k: Any, v: Any, mask: Any, **settings: Any) -> Any:
    return flax_nn.dot_product_attention(q, k, v, mask=~mask, **settings)


@pytest.mark.parametrize(
    ("bug", "cause"),
    [
        (unscaled, "attention_scale"),
        (exchanged, "q_k_exchanged"),
        (interleaved, "heads_split"),
        (unmerged, "heads_merged"),
        (off_by_one, "mask_off_by_one"),
        (inverted, "mask_inverted"),
    ],
)
def test_bugs_between_the_projections_are_named(bug: Any, cause: str, x: np.ndarray) -> None:
    module = flax_nn.MultiHeadDotProductAttention(HEADS, attention_fn=bug)
    mask = CAUSAL[None, None]
    report = parity.compare(module, CausalTorchAttention(), x, flax_kwargs={"mask": mask}, gradients=False)
    wrong = [(row.name, row.stage, row.cause_keys) for row in report.rows if row.diverges and row.name != "end to end"]
    assert wrong == [("out", "input", [cause])], str(report)


def test_bugs_of_gradients_alone_show_where_they_are(x: np.ndarray) -> None:
    def detached(q: Any, k: Any, v: Any, **settings: Any) -> Any:
        return flax_nn.dot_product_attention(q, jax.lax.stop_gradient(k), v, **settings)

    module = flax_nn.MultiHeadDotProductAttention(HEADS, attention_fn=detached)
    report = parity.compare(module, TorchAttention(), x)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("key", "cotangent")


def test_shapes_that_hold_the_same_values() -> None:
    assert layouts.splits((8, 2, 3), (8, 6))
    assert layouts.splits((2, 3, 8), (6, 8))
    assert not layouts.splits((2, 8, 3), (6, 8))
    assert not layouts.splits((6, 8), (8, 6))
    kernel = np.arange(48.0).reshape(6, 8)  # out, in
    moved = weights.to_flax("dense", "weight", kernel, shapes={"kernel": (8, 2, 3)})
    assert np.array_equal(moved[:, 1, 2], kernel[5])
    assert np.array_equal(weights.to_torch("dense", "weight", moved, shape=(6, 8)), kernel)
    rows = np.arange(60.0).reshape(2, 5, 6)
    (layout,) = layouts.candidates((2, 5, 6), (2, 5, 2, 3), None)
    assert np.array_equal(layout.to_torch(layout.to_flax(rows)), rows)


@pytest.mark.usefixtures("flax_promotes")
def test_other_numbers_of_features_are_told(x: np.ndarray) -> None:
    theirs = TorchAttention()
    theirs.q_proj, theirs.k_proj = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
    report = parity.compare(flax_nn.MultiHeadDotProductAttention(HEADS), theirs, x, gradients=False)
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.verdict) == ("query", "shape")
    assert "(8, 2, 4) in Flax, (8, 16) in PyTorch" in str(report)


class Packed(nn.Module):
    """PyTorch's own module, whose weights are packed."""

    def __init__(self, mask: Any = None, **settings: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        for bias in (self.attention.in_proj_bias, self.attention.out_proj.bias):
            nn.init.normal_(bias)  # zeros would hide one that is left out
        self.mask, self.settings = None if mask is None else torch.tensor(~mask), settings

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, attn_mask=self.mask, **self.settings)[0]


class Stock(flax_nn.Module):
    attention_fn: Any = flax_nn.dot_product_attention
    mask: bool = True

    @flax_nn.compact
    def __call__(self, x: Any) -> Any:
        layer = flax_nn.MultiHeadDotProductAttention(HEADS, attention_fn=self.attention_fn, name="attention")
        return layer(x, mask=CAUSAL[None, None] if self.mask else None)


@pytest.mark.parametrize("need_weights", [True, False])
def test_packed_weights_are_taken_apart(need_weights: bool, x: np.ndarray) -> None:
    theirs = Packed(CAUSAL, need_weights=need_weights)
    report = parity.compare(Stock(), theirs, x)
    assert report.exit_code == 0, str(report)
    assert {row.torch_name for row in report.rows if row.stage == "backward:kernel"} == {
        f"attention.{name}_proj" for name in ("q", "k", "v", "out")
    }
    assert type(theirs.attention) is nn.MultiheadAttention
    wrong = parity.compare(Stock(off_by_one), theirs, x, gradients=False).first_divergence
    assert wrong is not None
    assert (wrong.name, wrong.stage) == ("attention/out", "input")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_first": True},
        {"bias": False},
        {"kdim": 3, "vdim": 6},
    ],
)
def test_a_separate_attention_is_the_packed_one(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **settings).eval()
    separate, first = torch_attention.SeparateAttention(packed), settings.get("batch_first", False)
    sizes = WIDTH, settings.get("kdim", WIDTH), settings.get("vdim", WIDTH)
    q, k, v = (torch.randn((2, 5, n) if first else (5, 2, n), dtype=torch.float64) for n in sizes)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    added = torch.zeros(2, 5, dtype=torch.float64).masked_fill(padding, -torch.inf)
    for more in (
        {},
        {"need_weights": False, "attn_mask": future},
        {"attn_mask": future, "key_padding_mask": padding, "average_attn_weights": False},
        {"need_weights": False, "attn_mask": torch.randn(4, 5, 5, dtype=torch.float64), "key_padding_mask": added},
    ):
        for ours, theirs in zip(separate(q, k, v, **more), packed(q, k, v, **more), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_encoder_layers_call_what_stands_in_for_their_attention() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, batch_first=True, dtype=torch.float64)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, called = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64), []
    with torch.no_grad():
        expected = model(x)
        separate = torch_stand_ins.separated(copy.deepcopy(model), (x,), {})
        for path, module in separate.named_modules():
            if path.endswith("q_proj"):
                module.register_forward_hook(lambda *call, path=path: called.append(path))
        torch.testing.assert_close(separate(x), expected, rtol=1e-12, atol=1e-12)
    assert called == [f"layers.{i}.self_attn.q_proj" for i in range(2)]


def test_an_attention_that_is_another_when_taken_apart_is_refused(x: np.ndarray) -> None:
    class Own(nn.MultiheadAttention):
        pass

    hooked, own, keys = Packed(), Packed(), Packed()
    hooked.attention.register_forward_hook(lambda module, args, result: (2 * result[0], result[1]))
    own.attention = Own(WIDTH, HEADS, batch_first=True)
    keys.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_zero_attn=True)
    for theirs in (hooked, own, keys):
        with pytest.raises(CannotCompare, match=r"'attention' \(PyTorch\) can't be compared"):
            parity.compare(Stock(), theirs, x)


def test_a_wrong_replacement_is_noticed(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch_attention.SeparateAttention, "_heads", lambda self, x: x.unflatten(-1, (-1, HEADS)).movedim(-1, 1)
    )
    with pytest.raises(CannotCompare, match="when its packed weights are taken apart"):
        parity.compare(Stock(), Packed(CAUSAL), x)
