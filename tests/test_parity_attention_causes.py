"""Mistakes in attention that is written by hand, each in an attention of its own, and all named at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

import parity
from parity.reports.rows import Row

HEADS, DIM, LENGTH = 4, 4, 6
WIDTH = HEADS * DIM
SEEN = np.arange(LENGTH) < np.array([[6], [4]])  # (N, places), True where there is something


class Form(NamedTuple):
    """What an attention is, on both sides: keys and values for so many heads, and what else it has."""

    groups: int = HEADS
    rotary: str = ""
    causal: bool = False
    padded: bool = False
    cap: float = 0.0
    bias: bool = False
    packed: bool = False
    fused: bool = True  # PyTorch's own function


def angles(base: float = 10000.0, first: int = 0) -> np.ndarray:
    """(places, pairs)."""
    return (np.arange(LENGTH) + first)[:, None] * base ** (-np.arange(0, DIM, 2) / DIM)


class TorchAttention(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        if form.packed:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        else:
            self.q_proj = nn.Linear(WIDTH, WIDTH)
            self.k_proj, self.v_proj = (nn.Linear(WIDTH, form.groups * DIM) for _ in range(2))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        if form.bias:
            self.bias = nn.Parameter(torch.zeros(HEADS, LENGTH, LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        form, n = self.form, len(x)
        if form.packed:
            q, k, v = self.qkv(x).reshape(n, LENGTH, 3, HEADS, DIM).permute(2, 0, 3, 1, 4)
        else:
            layers = (self.q_proj, HEADS), (self.k_proj, form.groups), (self.v_proj, form.groups)
            q, k, v = (layer(x).view(n, LENGTH, h, DIM).transpose(1, 2) for layer, h in layers)
        if form.rotary:
            q, k = (torch_turned(each, form.rotary) for each in (q, k))
        mask = torch.tensor(SEEN)[:, None, None] if form.padded else None
        if form.fused:
            gqa = form.groups != HEADS
            mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=form.causal, enable_gqa=gqa)
        else:
            mixed = self.by_hand(q, k, v, mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(n, LENGTH, WIDTH))

    def by_hand(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if (times := HEADS // self.form.groups) > 1:
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(DIM)
        if self.form.cap:
            scores = torch.tanh(scores / self.form.cap) * self.form.cap
        if self.form.bias:
            scores = scores + self.bias
        if self.form.causal:
            scores = scores.masked_fill(torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1), -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        return scores.softmax(-1) @ v


def torch_turned(x: Tensor, rotary: str) -> Tensor:
    table = torch.tensor(angles(), dtype=x.dtype)
    if rotary == "complex":
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(table), table)).flatten(-2)
    cos, sin = torch.cat([table, table], -1).cos(), torch.cat([table, table], -1).sin()
    one, two = x.chunk(2, -1)
    if rotary == "chunks":
        cos, sin = table.cos(), table.sin()
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)
    return x * cos + torch.cat([-two, one], -1) * sin


class FlaxAttention(nnx.Module):
    def __init__(self, form: Form, bug: str) -> None:
        rngs = nnx.Rngs(0)
        self.form, self.bug = form, bug
        if form.packed:
            self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        else:
            self.q_proj = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.k_proj, self.v_proj = (nnx.Linear(WIDTH, form.groups * DIM, rngs=rngs) for _ in range(2))
        self.out_proj = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        if form.bias:
            self.bias = nnx.Param(jnp.zeros((HEADS, LENGTH, LENGTH)))

    def __call__(self, x: Any) -> Any:
        form, bug = self.form, self.bug
        q, k, v = self.projected(x)
        if bug == "keys are values":
            k, v = v, k
        if bug == "queries are keys":
            q, k = k, q
        heads = int(bug[0]) if bug[:1].isdigit() else HEADS
        groups = heads if form.groups == HEADS else form.groups
        q, k, v = (split(y, h, bug, name) for y, h, name in ((q, heads, "q"), (k, groups, "k"), (v, groups, "v")))
        if form.rotary:
            q, k = turned(q, form.rotary, bug), turned(k, form.rotary, "" if bug == "queries from one" else bug)
            v = turned(v, form.rotary, bug) if bug == "values turned" else v
        if form.groups != HEADS:
            k, v = (shared(each, HEADS // form.groups, bug) for each in (k, v))
        shares = self.shares(jnp.einsum("bhqd,bhkd->bhqk", q, k), q.shape[-1])
        return self.out_proj(joined(jnp.einsum("bhqk,bhkd->bhqd", shares, v), bug))

    def projected(self, x: Any) -> Any:
        if not self.form.packed:
            return self.q_proj(x), self.k_proj(x), self.v_proj(x)
        y = self.qkv(x)
        if self.bug == "heads before parts":
            y = y.reshape(*y.shape[:2], HEADS, 3, DIM)
            return [y[:, :, :, i].reshape(*y.shape[:2], WIDTH) for i in range(3)]
        q, k, v = jnp.split(y, 3, -1)
        return (k, q, v) if self.bug == "parts in another order" else (q, k, v)

    def shares(self, scores: Any, width: int) -> Any:
        form, bug = self.form, self.bug
        powers = {"unscaled": 0.0, "scaled twice": -1.0}
        scale = WIDTH**-0.5 if bug == "root of the width" else width ** powers.get(bug, -0.5)
        scores = scores * scale * (1.01 if bug == "one percent" else 1.0)
        if form.cap and bug != "no cap":
            cap = form.cap * (2 if bug == "twice the cap" else 1)
            scores = jnp.tanh(scores / cap) * cap
        if form.bias and bug != "no bias":
            bias = self.bias[...] * (2 if bug == "twice the bias" else 1)
            scores = scores + (bias.swapaxes(1, 2) if bug == "bias transposed" else bias)
        mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool), {"sees the next": 1, "not itself": -1}.get(bug, 0))
        mask = {"mask transposed": mask.T, "mask inverted": ~mask}.get(bug, mask)
        if (form.causal and bug not in ("no mask", "masked late")) or bug == "causal":
            scores = jnp.where(mask, scores, -10.0 if bug == "minus ten" else -1e30)
        if form.padded and bug != "no padding":
            seen = SEEN[:, None, None]
            scores = jnp.where(~seen if bug == "padding inverted" else seen, scores, -1e30)
        shares = jax.nn.softmax(scores, {"over queries": -2, "over heads": 1}.get(bug, -1))
        return jnp.where(mask, jax.nn.softmax(scores), 0) if bug == "masked late" else shares


def split(x: Any, heads: int, bug: str, name: str) -> Any:
    if bug in ("interleaved", f"{name} interleaved"):
        return x.reshape(*x.shape[:2], -1, heads).transpose(0, 3, 1, 2)
    if bug == "split unmoved":
        return x.reshape(len(x), heads, LENGTH, -1)
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def joined(x: Any, bug: str) -> Any:
    if bug == "not transposed back":
        return x.reshape(len(x), LENGTH, WIDTH)
    return (x.transpose(0, 2, 3, 1) if bug == "joined interleaved" else x.swapaxes(1, 2)).reshape(-1, LENGTH, WIDTH)


def shared(x: Any, times: int, bug: str) -> Any:
    if bug == "tiled":
        return jnp.tile(x, (1, times, 1, 1))
    return jnp.repeat(x[:, :1] if bug == "first for all" else x, HEADS if bug == "first for all" else times, 1)


def turned(x: Any, rotary: str, bug: str) -> Any:
    table = angles(500000.0 if bug == "another base" else 10000.0, int(bug == "queries from one"))
    table = -table if bug == "other way" else table
    if bug == "not turned":
        return x
    if (rotary == "complex") != (bug == "other pairs"):
        table = jnp.repeat(table, 2, -1)
        partner = jnp.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    else:
        table = jnp.tile(table, 2)
        one, two = jnp.split(x, 2, -1)
        partner = jnp.concatenate([two if bug == "no minus" else -two, one], -1)
    return x * jnp.cos(table) + partner * jnp.sin(table)


class TorchNet(nn.Module):
    """So many attentions side by side."""

    def __init__(self, form: Form, count: int) -> None:
        super().__init__()
        self.each = nn.ModuleList([TorchAttention(form) for _ in range(count)])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [attention(x) for attention in self.each]


class FlaxNet(nnx.Module):
    def __init__(self, form: Form, bugs: list[str]) -> None:
        self.each = nnx.List([FlaxAttention(form, bug) for bug in bugs])

    def __call__(self, x: Any) -> Any:
        return [attention(x) for attention in self.each]


SCALES = {"unscaled": "attention_scale", "scaled twice": "attention_scale", "root of the width": "attention_scale"}
SCALES |= {"one percent": "attention_scale"}
SHAPES = {
    "interleaved": "heads_split",
    "q interleaved": "heads_split",
    "split unmoved": "heads_split",
    "8 heads": "heads_number",
    "2 heads": "heads_number",
    "not transposed back": "heads_merged",
    "joined interleaved": "heads_merged",
    "over queries": "softmax_axis",
    "over heads": "softmax_axis",
    "keys are values": "exchanged",
    "queries are keys": "q_k_exchanged",
    "causal": "causal_added",
}
MASKS = {
    "no mask": "mask_missing",
    "sees the next": "mask_off_by_one",
    "not itself": "mask_off_by_one",
    "mask transposed": "mask_transposed",
    "mask inverted": "mask_inverted",
    "minus ten": "mask_value",
    "masked late": "mask_after_softmax",
}
ROTARY = {
    "another base": "rotary_base",
    "queries from one": "rotary_positions",
    "other way": "rotary_sign",
    "other pairs": "rotary_pairs",
    "not turned": "rotary_missing",
    "values turned": "rotary_values",
}
GROUPS = {"tiled": "kv_heads_order", "first for all": "kv_heads_first"}
SOME = ("unscaled", "one percent", "interleaved", "8 heads", "not transposed back", "over queries", "causal")
CASES: dict[str, tuple[Form, dict[str, Any]]] = {
    "fused": (Form(), {**SCALES, **SHAPES}),
    "by hand": (Form(fused=False), {bug: key for bug, key in (SCALES | SHAPES).items() if bug in SOME}),
    "causal": (Form(causal=True), {**MASKS, "2 heads": "heads_number"}),
    "causal by hand": (Form(causal=True, fused=False), MASKS),
    "padded": (Form(padded=True), {"no padding": "mask_missing", "padding inverted": "mask_inverted"}),
    "rotary": (Form(rotary="halves"), {**ROTARY, "no minus": "rotary_sign", "unscaled": "attention_scale"}),
    "complex rotary": (Form(rotary="complex"), ROTARY),
    "rotary in chunks": (Form(rotary="chunks"), {"another base": "rotary_base", "unscaled": "attention_scale"}),
    "grouped": (Form(groups=2), GROUPS),
    "grouped by hand": (Form(groups=2, fused=False, rotary="halves"), GROUPS),
    "capped": (Form(cap=2.0, fused=False), {"no cap": "softcap_missing", "twice the cap": "softcap"}),
    "biased": (
        Form(bias=True, fused=False),
        {"no bias": "bias_missing", "twice the bias": "bias_scale", "bias transposed": "bias_transposed"},
    ),
    "packed": (Form(packed=True), {"parts in another order": "q_k_exchanged", "heads before parts": "split_order"}),
}


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH))


def pair(form: Form, bugs: list[str]) -> tuple[FlaxNet, TorchNet]:
    torch.manual_seed(0)
    theirs = TorchNet(form, len(bugs))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    return FlaxNet(form, bugs), theirs


@pytest.mark.usefixtures("flax_promotes")
@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_named(name: str, x: np.ndarray) -> None:
    form, keys = CASES[name]
    bugs = ["", *keys]
    report = parity.compare(*pair(form, bugs), x, gradients=False)
    rows: dict[str, Row] = {row.name: row for row in report.divergences}
    assert "each/0/out_proj" not in rows  # nothing is wrong there
    for i, bug in enumerate(bugs[1:], 1):
        row = rows.pop(f"each/{i}/out_proj")
        assert row.stage == "input", bug
        assert row.cause_keys == [keys[bug]], (bug, row.causes, row.detail)
    assert not rows


def test_words_say_numbers(x: np.ndarray) -> None:
    report = parity.compare(*pair(Form(), ["unscaled", "one percent"]), x, gradients=False)
    one, two = (row.causes[0] for row in report.divergences)
    assert one.startswith("JAX: the scores aren't divided by the root of the head's width, 4")
    assert two.startswith("JAX: the scores are 1.01 times PyTorch's")


@pytest.mark.usefixtures("flax_promotes")
def test_mistakes_are_named_in_float32(x: np.ndarray) -> None:
    keys = {"unscaled": "attention_scale", "interleaved": "heads_split", "over queries": "softmax_axis"}
    report = parity.compare(*pair(Form(), ["", *keys]), x, gradients=False, dtype="float32")
    found = [row.cause_keys for row in report.divergences if row.stage == "input"]
    assert found == [[key] for key in keys.values()], str(report)
