"""What a comparison leaves behind: the mapping of weights, as a file, and the converter that it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor, nn

import parity
from parity.__main__ import main
from parity.comparison import environments, worker
from parity.errors import CannotCompare, CannotConvert
from parity.mapping import inference, operations

# A small network of torchvision's ResNet-18 form: its names, its kinds of layers, a downsampling branch.


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 8, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert values is not None
                    nn.init.uniform_(values, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer1(x)).flatten(1))


def pooled(x: Any) -> Any:
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), edges)


class LinenBlock(linen.Module):
    outputs: int
    stride: int

    @linen.compact
    def __call__(self, x: Any) -> Any:
        def conv(size: int, stride: int, name: str) -> Any:
            return linen.Conv(self.outputs, (size, size), stride, padding=size // 2, use_bias=False, name=name)

        def norm(name: str) -> Any:
            return linen.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)

        y = jax.nn.relu(norm("bn1")(conv(3, self.stride, "conv1")(x)))
        y = norm("bn2")(conv(3, 1, "conv2")(y))
        if self.stride != 1:
            x = norm("downsample_1")(conv(1, self.stride, "downsample_0")(x))
        return jax.nn.relu(x + y)


class LinenResNet(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (7, 7), 2, padding=3, use_bias=False, name="conv1")(x)
        x = jax.nn.relu(linen.BatchNorm(use_running_average=True, epsilon=1e-5, name="bn1")(x))
        x = pooled(x)
        x = LinenBlock(8, 2, name="layer1_0")(x)
        return linen.Dense(5, name="fc")(x.mean((1, 2)))


class NnxBlock(nnx.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        def conv(inputs: int, size: int, stride: int) -> nnx.Conv:
            return nnx.Conv(
                inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False, rngs=rngs
            )  # fmt: skip

        self.conv1, self.conv2 = conv(inputs, 3, stride), conv(outputs, 3, 1)
        self.bn1, self.bn2 = (nnx.BatchNorm(outputs, epsilon=1e-5, rngs=rngs) for _ in range(2))
        layers = [conv(inputs, 1, stride), nnx.BatchNorm(outputs, epsilon=1e-5, rngs=rngs)] if stride != 1 else []
        self.downsample = nnx.List(layers)

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))
        for layer in self.downsample:
            x = layer(x)
        return jax.nn.relu(x + y)


class NnxResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 4, (7, 7), strides=2, padding=3, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(4, epsilon=1e-5, rngs=rngs)
        self.layer1 = nnx.List([NnxBlock(4, 8, 2, rngs)])
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = pooled(jax.nn.relu(self.bn1(self.conv1(x))))
        for block in self.layer1:
            x = block(x)
        return self.fc(x.mean((1, 2)))


PICTURES = np.random.default_rng(0).normal(size=(1, 3, 16, 16))


def original() -> ResNet:
    torch.manual_seed(0)
    return ResNet().eval()


def test_a_resnets_file_is_converted_for_linen(tmp_path: Path, flax_promotes: None) -> None:
    model = original()
    report = parity.compare(LinenResNet(), model, PICTURES, gradients=False)
    assert report.equal, report
    report.mapping.save(tmp_path / "resnet.json")
    save_file(model.state_dict(), tmp_path / "resnet.safetensors")

    mapping = parity.Mapping.load(tmp_path / "resnet.json")
    assert mapping == report.mapping
    variables = mapping.to_tree(tmp_path / "resnet.safetensors")
    assert {*variables} == {"params", "batch_stats"}
    shapes = jax.eval_shape(LinenResNet().init, jax.random.key(0), np.zeros((1, 16, 16, 3)))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    # What the comparison itself used, bit for bit: it holds them to PyTorch's.
    double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    assert parity.compare(LinenResNet(), model, PICTURES, variables=double, gradients=False).equal
    # And back, bit for bit, all but what counts batches.
    state, back = {k: v.numpy() for k, v in model.state_dict().items()}, mapping.to_torch(variables)
    assert {*state} - {*back} == {*mapping.unused} and all("num_batches" in name for name in mapping.unused)
    assert all(np.array_equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in back)


def test_a_resnets_file_is_converted_for_nnx(tmp_path: Path, flax_promotes: None) -> None:
    model, ported = original(), NnxResNet(nnx.Rngs(0))
    mapping = parity.compare(ported, model, PICTURES, gradients=False).mapping
    save_file(model.state_dict(), tmp_path / "resnet.safetensors")
    nnx.update(ported, mapping.to_tree(tmp_path / "resnet.safetensors", like=ported))
    assert isinstance(ported.conv1.kernel[...], jax.Array)
    double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), nnx.state(ported, (nnx.Param, nnx.BatchStat)))
    assert parity.compare(ported, model, PICTURES, variables=double, gradients=False).equal
    # Without an example of the form: plain dictionaries of NumPy's arrays, which nnx.update takes as well.
    again = NnxResNet(nnx.Rngs(1))
    nnx.update(again, mapping.to_tree(model.state_dict()))
    for (_, a), (_, b) in zip(nnx.state(again).flat_state(), nnx.state(ported).flat_state(), strict=True):
        assert np.array_equal(a[...], b[...])
    back = mapping.to_torch(ported)
    assert all(np.array_equal(array, model.state_dict()[name]) for name, array in back.items())


class Kinds(nn.Module):
    """Groups, a transposed convolution, a norm of groups, a parameter of the model's own, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.norm = nn.GroupNorm(2, 4)
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.wide, self.fc = nn.Linear(64, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.up(self.conv(x))) * self.scale
        return self.fc(torch.tanh(self.wide(x.flatten(1))))


class LinenKinds(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (3, 3), padding=1, feature_group_count=2, name="conv")(x)
        x = linen.ConvTranspose(4, (2, 2), (2, 2), padding="VALID", name="up")(x)
        x = linen.GroupNorm(2, epsilon=1e-5, name="norm")(x) * self.param("scale", linen.initializers.ones, (4,))
        return linen.Dense(4, name="fc")(jnp.tanh(linen.Dense(4, name="wide")(x.reshape(len(x), -1))))


class Words(nn.Module):
    """A table, packed attention, norms, and a head that is the table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.before = nn.Embedding(7, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after, self.head = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.before(self.embed(words))
        return self.head(self.after(x + self.attention(x, x, x, need_weights=False)[0]))


class LinenWords(linen.Module):
    @linen.compact
    def __call__(self, words: Any) -> Any:
        x = linen.LayerNorm(epsilon=1e-5, name="before")(linen.Embed(7, 8, name="embed")(words))
        x = x + linen.MultiHeadDotProductAttention(2, name="attention")(x)
        return linen.Dense(7, use_bias=False, name="head")(linen.RMSNorm(name="after")(x))


def shaken(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters()}.values():
            parameter.add_(torch.randn(parameter.shape) / 8)
    return model.eval()


@pytest.fixture(scope="module")
def kinds() -> tuple[nn.Module, NDArray, parity.Mapping]:
    torch.manual_seed(0)
    model, x = shaken(Kinds()), np.random.default_rng(0).normal(size=(2, 2, 2, 2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return model, x, parity.compare(LinenKinds(), model, x, gradients=False).mapping


@pytest.fixture(scope="module")
def words() -> tuple[nn.Module, NDArray, parity.Mapping]:
    torch.manual_seed(0)
    model, x = shaken(Words()), np.array([[1, 5, 2], [0, 3, 6]])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return model, x, parity.compare(LinenWords(), model, x, gradients=False).mapping


def operations_of(mapping: parity.Mapping) -> dict[str, list[dict[str, Any]]]:
    return {entry["jax"]: entry["operations"] for entry in mapping.to_json()["tensors"] if entry["operations"]}


def agree(module: linen.Module, model: nn.Module, x: NDArray, mapping: parity.Mapping) -> bool:
    """Whether both give the same in float64, with weights that only the mapping has brought over."""
    theirs = model.double()(torch.tensor(x)).detach().numpy()
    x = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    ours = module.apply(mapping.to_tree(model.state_dict()), x)
    return bool(np.allclose(np.asarray(ours), theirs, rtol=0, atol=1e-13 * np.abs(theirs).max()))


def test_what_every_kind_of_layer_needs_is_written_down(kinds: Any, words: Any, flax_promotes: None) -> None:
    model, x, mapping = kinds
    assert operations_of(mapping) == {
        "params/conv/kernel": [{"transpose": [2, 3, 1, 0]}],
        "params/up/kernel": [{"flip": [2, 3]}, {"transpose": [2, 3, 0, 1]}],
        "params/scale": [{"reshape": [4]}],
        "params/wide/kernel": [{"reshape": [4, 4, 16]}, {"transpose": [2, 1, 0]}, {"reshape": [64, 4]}],
        "params/fc/kernel": [{"transpose": [1, 0]}],
    }
    assert agree(LinenKinds(), model, x, mapping)
    model, x, mapping = words
    first = {name: {"axis": 0, "start": 8 * i, "stop": 8 * i + 8} for i, name in enumerate(("query", "key", "value"))}
    by_heads = [{"reshape": [2, 4, 8]}, {"transpose": [2, 0, 1]}]
    projections = {f"params/attention/{name}/kernel": [{"split": part}, *by_heads] for name, part in first.items()}
    biases = {f"params/attention/{name}/bias": [{"split": part}, {"reshape": [2, 4]}] for name, part in first.items()}
    found = operations_of(mapping)
    assert found == projections | biases | {
        "params/attention/out/kernel": [{"reshape": [8, 2, 4]}, {"transpose": [1, 2, 0]}],
        "params/head/kernel": [{"transpose": [1, 0]}],
    }
    assert mapping.tied == {"head.weight": "embed.weight"}
    assert agree(LinenWords(), model, x, mapping)


@pytest.mark.parametrize("name", ["kinds", "words"])
def test_there_and_back_is_the_same_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    model, _, mapping = request.getfixturevalue(name)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    back = mapping.to_torch(mapping.to_tree(state))
    assert {*back} == {*state} and all(np.array_equal(back[key], state[key]) for key in state)
    assert mapping == parity.Mapping.from_json(json.loads(mapping.text()))
    half = {key: value.to(torch.bfloat16) for key, value in model.state_dict().items()}
    made = mapping.to_jax(half)
    assert {array.dtype.name for array in made.values()} == {"bfloat16"}
    again = mapping.to_torch(made)
    assert all(np.array_equal(again[key].astype(np.float32), half[key].float().numpy()) for key in half)


def test_a_mapping_that_was_read_is_what_the_comparison_uses(kinds: Any, tmp_path: Path, flax_promotes: None) -> None:
    model, x, mapping = kinds
    mapping.save(tmp_path / "right.json")
    report = parity.compare(LinenKinds(), model, x, mapping=parity.Mapping.load(tmp_path / "right.json"))
    assert report.equal, report
    assert report.mapping == mapping
    content = json.loads(mapping.text())
    exchanged = {"conv.bias": "up.bias", "up.bias": "conv.bias"}
    for entry in content["tensors"]:
        entry["torch"] = exchanged.get(entry["torch"], entry["torch"])
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    wrong = parity.Mapping.load(tmp_path / "wrong.json")
    report = parity.compare(LinenKinds(), model, x, mapping=wrong, gradients=False)
    found = [(row.name, row.stage) for row in report.rows if row.stage.startswith("weights") and row.diverges]
    assert found == [("conv", "weights:bias"), ("up", "weights:bias")]
    assert report.mapping.comparison == {"verdict": "different", "dtype": "float64"}


def test_a_pairing_that_is_wrong_is_found(kinds: Any, flax_promotes: None) -> None:
    model, x, mapping = kinds
    content = json.loads(mapping.text())
    content["layers"] |= {"wide": "fc", "fc": "wide"}
    report = parity.compare(LinenKinds(), model, x, mapping=parity.Mapping.from_json(content), gradients=False)
    assert not report.equal
    with pytest.raises(CannotConvert, match=r"`layers` gives wide to wide, fc: one of JAX's layers each"):
        parity.Mapping.from_json(content | {"layers": {"wide": "wide", "fc": "wide"}})


def test_a_mapping_of_another_model_is_refused(kinds: Any, words: Any, flax_promotes: None) -> None:
    model, x, mapping = kinds
    with pytest.raises(CannotCompare, match=r"'embed', no leaf of the Flax model; it has conv, up"):
        parity.compare(LinenKinds(), model, x, mapping=words[2])
    with pytest.raises(CannotConvert) as error:
        mapping.to_jax({"fc.weight": np.zeros((4, 5)), "extra": np.zeros(2)} | dict.fromkeys(["fc.bias"], np.zeros(4)))
    for part in (
        "the weights aren't those of the Kinds", "conv.weight (4, 1, 3, 3) is missing", "extra (2,) is left over",
        "fc.weight is (4, 5), the mapping's is (4, 4)", "belongs into `unused`",
    ):  # fmt: skip
        assert part in str(error.value)
    variables = mapping.to_tree(model.state_dict())
    variables["params"]["fc"]["kernel"] = np.zeros((4, 5))
    with pytest.raises(CannotConvert, match=r"params/fc/kernel is \(4, 5\), the mapping's is \(4, 4\)"):
        mapping.to_torch(variables)
    with pytest.raises(CannotConvert, match=r"params/fc/kernel is \(4, 4\) by the mapping, \(4, 5\) in the JAX model"):
        mapping.to_tree(model.state_dict(), like=variables)


def test_tied_tensors_stand_for_each_other(words: Any) -> None:
    model, _, mapping = words
    state = model.state_dict()
    del state["head.weight"]  # as safetensors leaves it out
    made = mapping.to_jax(state)
    assert np.array_equal(made["params/head/kernel"].T, made["params/embed/embedding"])
    with pytest.raises(
        CannotConvert, match=r"head.weight and embed.weight are one tensor in Words, but differ in what"
    ):
        mapping.to_jax(state | {"head.weight": torch.zeros(7, 8)})
    made["params/head/kernel"] = made["params/head/kernel"] + 1
    with pytest.raises(CannotConvert, match=r"head.weight and embed.weight are one tensor in PyTorch, but differ"):
        mapping.to_torch(made)


def packed(operations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    entry = {"torch": "rnn.bias_ih_l0", "torch_shape": [6], "jax": "cell/hi/bias", "jax_shape": [3], "dtype": "kept"}
    return entry | {"operations": operations} | more


def mapping_of(*tensors: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "format": "parity-mapping", "version": 1, "library": "flax.nnx", "jax_model": "A", "torch_model": "B",
        "comparison": {}, "layers": {}, "tensors": list(tensors), "tied": {}, "unused": [],
    } | more  # fmt: skip


def part(start: int, stop: int) -> dict[str, Any]:
    return {"split": {"axis": 0, "start": start, "stop": stop}}


def test_gates_are_split_and_biases_summed() -> None:
    def gate(name: str, start: int) -> dict[str, Any]:
        other = {"torch": "rnn.bias_hh_l0", "torch_shape": [6], "operations": [part(start, start + 3)]}
        return packed([part(start, start + 3), {"sum": [other]}], jax=f"cell/{name}/bias")

    content = mapping_of(gate("hi", 0), gate("hf", 3))
    mapping = parity.Mapping.from_json(content)
    assert mapping.to_json() == content
    state = {"rnn.bias_ih_l0": np.arange(6.0), "rnn.bias_hh_l0": np.full(6, 0.5)}
    made = mapping.to_jax(state)
    assert np.array_equal(made["cell/hi/bias"], [0.5, 1.5, 2.5]) and np.array_equal(
        made["cell/hf/bias"], [3.5, 4.5, 5.5]
    )
    back = mapping.to_torch(made)
    assert np.array_equal(back["rnn.bias_ih_l0"], np.arange(6) + 0.5) and not back["rnn.bias_hh_l0"].any()
    again = mapping.to_jax(back)
    assert all(np.array_equal(again[path], made[path]) for path in made)
    with pytest.raises(CannotConvert, match=r"no leaf gives the rest of rnn.bias_ih_l0"):
        parity.Mapping.from_json(mapping_of(packed([part(0, 3)]))).to_torch({"cell/hi/bias": np.zeros(3)})
    twice = mapping_of(packed([part(0, 3)]), packed([part(2, 5)], jax="b"))
    with pytest.raises(CannotConvert, match=r"b would overwrite a part of rnn.bias_ih_l0"):
        parity.Mapping.from_json(twice).to_torch({"cell/hi/bias": np.zeros(3), "b": np.zeros(3)})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "no mapping: an object with the format 'parity-mapping'"),
        (mapping_of(version=2), "version 2 of the format isn't known, this program reads 1"),
        (mapping_of(more=1), "more: missing, unknown or of the wrong kind"),
        (mapping_of(layers=[]), "layers: missing, unknown or of the wrong kind"),
        (mapping_of(library="haiku"), "library 'haiku' is none of flax.linen, flax.nnx, function"),
        (mapping_of(packed([])), r"'cell/hi/bias': rnn.bias_ih_l0 becomes \(6,\), the leaf has \(3,\)"),
        (mapping_of(packed([{"eval": "1"}])), "operation 'eval' isn't known; there are split, reshape"),
        (mapping_of(packed([{"reshape": [2, 2]}])), r"reshape \[2, 2\] holds 4 values, not 6"),
        (mapping_of(packed([{"reshape": [-1]}])), "isn't a list of whole numbers"),
        (mapping_of(packed([{"transpose": [1, 0]}])), "isn't an order of the 1 axes"),
        (mapping_of(packed([{"flip": [1]}])), "doesn't name some of the 1 axes"),
        (mapping_of(packed([part(4, 7)])), "split of axis 0 from 4 to 7 isn't in the shape"),
        (mapping_of(packed([{"flip": [0]}, part(0, 3)])), "split must come before all else"),
        (mapping_of(packed([part(0, 3), {"sum": []}])), "isn't a list of further tensors"),
        (mapping_of(packed([part(0, 3)], dtype="int3")), "dtype 'int3' is none of kept, float64"),
        (mapping_of(packed([part(0, 3)]), packed([part(3, 6)])), "cell/hi/bias has 2 entries"),
        (mapping_of(packed([part(0, 3)]), packed([], jax="b", torch_shape=[3])), "has two shapes"),
        (mapping_of({"torch": "a"}), "an entry of `tensors` needs torch, torch_shape"),
    ],
)
def test_a_file_that_is_no_mapping_says_what_is_wrong(content: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "mapping.json").write_text(json.dumps(content))
    with pytest.raises(CannotConvert, match=says):
        parity.Mapping.load(tmp_path / "mapping.json")


def test_a_mapping_may_say_the_dtype() -> None:
    mapping = parity.Mapping.from_json(mapping_of(packed([part(0, 3)], dtype="bfloat16")))
    made = mapping.to_jax({"rnn.bias_ih_l0": np.linspace(0, 1, 6)})["cell/hi/bias"]
    assert made.dtype.name == "bfloat16" and float(made[1]) == 0.2001953125


def test_operations_are_read_off_from_any_move() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(rng.integers(1, 5, size=rng.integers(1, 5)))
        places = inference.places(tuple(int(n) for n in shape))
        moved = places
        if rng.random() < 0.3:
            axis = int(rng.integers(moved.ndim))
            start = int(rng.integers(moved.shape[axis]))
            moved = moved[(slice(None),) * axis + (slice(start, int(rng.integers(start, moved.shape[axis])) + 1),)]
        axis = int(rng.integers(moved.ndim))
        if moved.shape[axis] == 4:
            moved = moved.reshape(*moved.shape[:axis], 2, 2, *moved.shape[axis + 1 :])
        for _ in range(2):
            moved = moved.transpose(rng.permutation(moved.ndim))
            moved = np.flip(moved, tuple(axis for axis in range(moved.ndim) if rng.random() < 0.3))
            if rng.random() < 0.3 and moved.ndim > 1:
                moved = moved.reshape(-1, *moved.shape[2:])
        found = inference.moves(moved, places.shape)
        assert found is not None
        assert np.array_equal(operations.apply(found, places), moved)
        assert operations.shapes(found, places.shape)[-1] == moved.shape
    across = inference.places((3, 2)).T.reshape(1, 3, 2)
    assert inference.moves(across, (3, 2)) == [operations.Transpose((1, 0)), operations.Reshape((1, 3, 2))]
    shuffled = np.array([0, 2, 1, 4, 3])
    assert inference.moves(shuffled, (5,)) is None


def network(tree: Any, x: Any) -> Any:
    for layer in tree["layers"]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x


def test_a_function_of_a_tree(rng: np.random.Generator, flax_promotes: None) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2), nn.Tanh()).double(), rng.normal(size=(2, 3))
    zeros = {"layers": [{"w": jnp.zeros((3, n)), "b": jnp.zeros(n)} for n in (3, 2)]}
    state = {name: jnp.asarray(value.numpy()) for name, value in model.state_dict().items()}
    tree = {"layers": [{"w": state[f"{i}.weight"].T, "b": state[f"{i}.bias"]} for i in (0, 2)]}
    report = parity.compare(network, model, x, variables=tree)
    assert report.equal, report
    mapping = parity.Mapping.from_json(json.loads(report.mapping.text()))
    made = mapping.to_tree(model.state_dict(), like=zeros)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), made, tree))
    assert parity.compare(network, model, x, variables=made, mapping=mapping).equal
    back = mapping.to_torch(made)
    assert all(np.array_equal(back[name], value.numpy()) for name, value in model.state_dict().items())
    with pytest.raises(CannotConvert, match=r"layers/0/b may lie in a list: give a tree of the same form"):
        mapping.to_tree(model.state_dict())
    content = json.loads(mapping.text())
    [first] = [entry for entry in content["tensors"] if entry["torch"] == "0.weight"]
    first["operations"] = []
    report = parity.compare(network, model, x, variables=made, mapping=parity.Mapping.from_json(content))
    assert report.first_divergence is not None
    assert (report.first_divergence.name, report.first_divergence.stage) == ("layers/0/w", "weights")


PORT = """
import flax.linen as nn

class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="b")(nn.tanh(nn.Dense(2, name="a")(x)))
"""
ORIGINAL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(__import__("collections").OrderedDict(a=nn.Linear(2, 2), act=nn.Tanh(), b=nn.Linear(2, 2)))
"""
# Converts a file by the command line where neither framework can be imported.
WITHOUT_FRAMEWORKS = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "torch"):
            raise ImportError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden())
from parity.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": f"{root}:{cwd}"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a comparison in this process; that each runs in its own is test_parity_commands's subject."""

    def step(command: list[str], **_: Any) -> SimpleNamespace:
        assert command[1:3] == ["-m", "parity.comparison.worker"]
        return SimpleNamespace(returncode=worker.main(command[3:]), stderr="")

    monkeypatch.setattr(environments, "subprocess", SimpleNamespace(run=step))


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers_here: None,
    flax_promotes: None,
) -> None:  # fmt: skip
    (tmp_path / "port.py").write_text(PORT)
    (tmp_path / "original.py").write_text(ORIGINAL)
    models = ("compare", "--flax", "port:Net", "--torch", "original:net", "--shape", "2,2", "--no-gradients")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("port", "original"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main([*models, "--save-mapping", "net.json"]) == 0
    said = capsys.readouterr().out
    assert "equal: " in said and "weights:kernel" not in said  # equal layers are a line each
    state = {"a.weight": [[1, 2], [3, 4]], "a.bias": [5, 6], "b.weight": [[7, 8], [9, 0]], "b.bias": [1, 2]}
    save_file(
        {name: torch.tensor(value, dtype=torch.float32) for name, value in state.items()}, tmp_path / "w.safetensors"
    )
    convert = ("-c", WITHOUT_FRAMEWORKS, "convert", "--mapping", "net.json")
    done = run(*convert, "--weights", "w.safetensors", "--output", "flax.safetensors", cwd=tmp_path)
    assert done.returncode == 0 and "4 tensors of Net, 12 values" in done.stdout, done.stderr
    made = load_file(tmp_path / "flax.safetensors")
    assert {*made} == {"params/a/kernel", "params/a/bias", "params/b/kernel", "params/b/bias"}
    assert np.array_equal(made["params/a/kernel"], [[1, 3], [2, 4]])
    back = run(*convert, "--weights", "flax.safetensors", "--output", "w.npz", "--to", "torch", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    with np.load(tmp_path / "w.npz") as file:
        assert all(np.array_equal(file[name], value) for name, value in state.items())
    # Corrected by hand, wrongly: the two kernels of one shape.
    content = json.loads((tmp_path / "net.json").read_text())
    exchanged = {"a.weight": "b.weight", "b.weight": "a.weight"}
    for entry in content["tensors"]:
        entry["torch"] = exchanged.get(entry["torch"], entry["torch"])
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    assert main([*models, "--mapping", "wrong.json"]) == 1
    assert "first divergence: model: a, weights:kernel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--weights", "w.npz", "--output", "o.npz"], "--mapping is needed"),
        (["--mapping", "no.json", "--weights", "w.npz", "--output", "o.npz"], "no.json can't be read"),
        (["--mapping", "m.json", "--weights", "no.npz", "--output", "o.npz"], "no.npz is not a file"),
        (["--mapping", "m.json", "--weights", "bad.npz", "--output", "o.npz"], "bad.npz is not a readable .npz file"),
        (
            ["--mapping", "m.json", "--weights", "bad.safetensors", "--output", "o.npz"],
            "not a readable safetensors file",
        ),
        (
            ["--mapping", "m.json", "--weights", "bad.pth", "--output", "o.npz"],
            "bad.pth is not a PyTorch file of weights",
        ),
        (["--mapping", "m.json", "--weights", "w.txt", "--output", "o.npz"], "files that end in .safetensors, .npz"),
        (["--mapping", "m.json", "--weights", "w.npz", "--output", "o.txt"], "must end in .safetensors or .npz"),
        (["--mapping", "m.json", "--weights", "w.npz", "--output", "o.npz"], "rnn.bias_ih_l0 (6,) is missing"),
        (["--mapping", "new.json", "--weights", "w.npz", "--output", "o.npz"], "version 3 of the format isn't known"),
        (["--mapping", "bad.npz", "--weights", "w.npz", "--output", "o.npz"], "is not JSON"),
        (["--mapping", "m.json", "--weights", "w.npz", "--output", "o.npz", "--to", "tf"], "--to"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alexnet_io.command_line.settings import run_command

    monkeypatch.chdir(tmp_path)
    Path("m.json").write_text(json.dumps(mapping_of(packed([part(0, 3)]))))
    Path("new.json").write_text(json.dumps(mapping_of(version=3)))
    np.savez("w.npz", other=np.zeros(3))
    for name in ("bad.npz", "bad.safetensors", "bad.pth", "w.txt"):
        Path(name).write_bytes(b"nothing of the kind")
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: main(["convert", *words]))
    assert stop.value.code == 2
    assert says in capsys.readouterr().err
    assert not Path("o.npz").exists()


def test_weights_that_do_not_fit_give_no_mapping(rng: np.random.Generator, flax_promotes: None) -> None:
    class Short(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.Dense(2, use_bias=False, name="b")(linen.Dense(2, name="a")(x))

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    report = parity.compare(Short(), Long(), rng.normal(size=(2, 2)), gradients=False)
    with pytest.raises(CannotConvert, match=r"b.bias \(2,\) of the PyTorch model has no place in the JAX model"):
        _ = report.mapping


def test_a_checkpoint_of_a_training_program_is_read(kinds: Any, tmp_path: Path) -> None:
    model, _, mapping = kinds
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    made, plain = mapping.to_jax(tmp_path / "checkpoint.pth"), mapping.to_jax(model.state_dict())
    assert {*made} == {*plain} and all(np.array_equal(made[path], plain[path]) for path in made)


class WithIdle(nnx.Module):
    """A layer that nothing is computed with, beside one that is."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.used, self.spare = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.used(x)


def test_what_the_model_computes_nothing_with_is_named_and_left_alone(tmp_path: Path, flax_promotes: None) -> None:
    original = nn.Sequential()
    original.add_module("used", nn.Linear(4, 3))
    x = np.random.default_rng(0).normal(size=(2, 4))
    port = WithIdle(nnx.Rngs(0))
    report = parity.compare(port, original.double(), x)
    assert report.equal
    assert report.mapping.idle == ("spare/bias", "spare/kernel")
    report.mapping.save(tmp_path / "net.json")
    mapping = parity.Mapping.load(tmp_path / "net.json")
    assert mapping == report.mapping
    state = original.state_dict()
    assert {*mapping.to_jax(state)} == {"used/kernel", "used/bias"}
    spare = np.asarray(port.spare.kernel[...])
    nnx.update(port, mapping.to_tree(state, like=port))
    assert np.array_equal(port.spare.kernel[...], spare)
    assert np.array_equal(port.used.kernel[...], state["used.weight"].numpy().T)
    assert {name: tuple(a.shape) for name, a in mapping.to_torch(port).items()} == {
        "used.weight": (3, 4),
        "used.bias": (3,),
    }
    assert parity.compare(port, original, x, mapping=mapping).equal
    # A file from before there were such leaves is read as ever.
    older = {key: value for key, value in mapping.to_json().items() if key != "idle"}
    assert parity.Mapping.from_json(older).idle == ()
