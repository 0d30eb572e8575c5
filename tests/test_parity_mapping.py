"""What a comparison leaves behind: the mapping of weights, as a file, and the converter that it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
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
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert values is not None
                    nn.init.uniform_(values, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))).flatten(1))


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
        x = linen.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for layer, (outputs, stride) in enumerate(((4, 1), (8, 2)), 1):
            for block in range(2):
                x = LinenBlock(outputs, stride if block == 0 else 1, name=f"layer{layer}_{block}")(x)
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
        self.layer1 = nnx.List([NnxBlock(4, 4, 1, rngs), NnxBlock(4, 4, 1, rngs)])
        self.layer2 = nnx.List([NnxBlock(4, 8, 2, rngs), NnxBlock(8, 8, 1, rngs)])
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = linen.max_pool(jax.nn.relu(self.bn1(self.conv1(x))), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in (*self.layer1, *self.layer2):
            x = block(x)
        return self.fc(x.mean((1, 2)))


PICTURES = np.random.default_rng(0).normal(size=(1, 3, 16, 16))


def original() -> ResNet:
    torch.manual_seed(0)
    return ResNet().eval()


def test_a_resnets_file_is_converted_for_linen(tmp_path: Path, flax_promotes: None) -> None:
    model = original()
    report = parity.compare(LinenResNet(), model, PICTURES)
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
