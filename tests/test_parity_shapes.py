"""Layers whose shapes don't fit: a divergence with a place and a cause, never a reason to stop."""

import functools
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
import torch

import parity
from parity.alexnet import layerwise as layers
from parity.alexnet import pairs
from parity.causes.layer import shapes as shape_causes
from parity.mutants import planting

pytestmark = pytest.mark.usefixtures("flax_promotes")


class Port(nn.Module):
    """A small network with one thing wrong at a time, whose layers carry PyTorch's names."""

    features: int = 8
    window: int = 3
    groups: int = 1
    bias: bool = True
    hidden: int = 12

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits of NHWC maps."""
        pads = [(self.window // 2, self.window // 2)] * 2
        x = nn.relu(nn.Conv(4, (3, 3), padding=1, name="conv1")(x))
        window = (self.window, self.window)
        x = nn.Conv(
            self.features, window, padding=pads, feature_group_count=self.groups, use_bias=self.bias, name="conv2"
        )(x)
        x = nn.relu(x).reshape(len(x), -1)
        return nn.Dense(5, name="fc2")(nn.relu(nn.Dense(self.hidden, name="fc1")(x)))


class Original(torch.nn.Module):
    """What `Port` was ported from."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(4, 8, 3, padding=1, bias=bias)
        self.fc1 = torch.nn.Linear(8 * 30, 12)
        self.fc2 = torch.nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of NCHW maps."""
        x = self.conv2(self.conv1(x).relu()).relu().flatten(1)
        return self.fc2(self.fc1(x).relu())


@functools.cache
def the_right_one_is_equal(gradients: bool) -> bool:
    """What differs below is not there without a bug."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    return parity.compare(Port(), Original(), x, gradients=gradients).equal


@pytest.mark.parametrize(
    ("wrong", "layer", "cause"),
    [
        ({"features": 6}, "conv2", "features"),
        ({"window": 5}, "conv2", "kernel_size"),
        ({"groups": 2}, "conv2", "groups"),
        ({"hidden": 10}, "fc1", "features"),
        ({"bias": False}, "conv2", "bias_missing"),
    ],
)
@pytest.mark.parametrize("gradients", [False, True])
def test_weights_that_do_not_fit_are_named(wrong: dict[str, Any], layer: str, cause: str, gradients: bool) -> None:
    assert the_right_one_is_equal(gradients)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    report = parity.compare(Port(**wrong), Original(), x, gradients=gradients)
    assert report.exit_code == 1
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.cause_keys[:1]) == (layer, [cause]), str(report)


def test_a_bias_that_pytorch_lacks() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    report = parity.compare(Port(), Original(bias=False), x)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("conv2", ["bias_missing"])
    assert "PyTorch: there is no bias" in first.causes[0]


def test_gradients_of_maps_of_another_size() -> None:
    """Backward is judged where it can be; the layer whose map has another size is named once, forward."""
    pair = planting.jax_row(pairs.build("cifar_13pct"), "pool1", stride=3)
    report = layers.compare_pair(pair, np.asarray(pairs.images(pair, 2), np.float64), gradients=True, whole=False)
    assert [(row.name, row.stage, row.cause_keys) for row in report.divergences] == [("pool1", "forward", ["stride"])]
    assert any(row.stage == "backward" and row.name == "conv1" and row.equal for row in report.rows)


def test_shapes_are_put_into_words() -> None:
    def keys(kind: str, flax: dict, torch: dict) -> list[str]:
        return [cause.key for cause in shape_causes.explain(kind, flax, torch)]

    conv = {"kernel": (3, 3, 4, 8), "bias": (8,)}
    assert keys("conv", conv, conv) == []
    assert keys("conv", conv | {"kernel": (3, 3, 3, 8)}, conv) == ["inputs"]
    assert keys("conv", conv | {"kernel": (3, 5, 4, 8)}, conv) == ["kernel_size"]
    assert keys("dense", {"kernel": (10, 4)}, {"kernel": (20, 4)}) == ["inputs"]
    assert keys("local_conv", {"kernel": (6, 6, 3, 3, 4, 8)}, {"kernel": (5, 6, 3, 3, 4, 8)}) == ["map_size"]
    assert keys("other", {"scale": (4,)}, {"scale": (5,)}) == ["scale_shape"]
    text = str(shape_causes.explain("conv", conv | {"kernel": (3, 3, 2, 8)}, conv)[0])
    assert text == "each output sees 2 input channels in Flax, 4 in PyTorch: the numbers of groups differ"


def test_a_model_that_breaks_down_is_compared_up_to_there() -> None:
    """A wrong stride on PyTorch's side makes maps that its own fully connected layer can't take."""
    original = Original()
    original.conv1.stride = (2, 2)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    report = parity.compare(Port(), original, x)
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.cause_keys) == ("conv1", ["stride"])
    assert {row.name for row in report.rows if row.stage == "forward"} == {"conv1", "conv2", "fc1"}
    assert "PyTorch can't run it: mat1 and mat2" in str(report)
    assert any("where PyTorch breaks down" in what for what in report.not_exercised)


def test_a_model_that_cannot_run_at_all_is_refused_in_a_line() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6))
    with pytest.raises(ValueError, match="the PyTorch model can't run: Given groups=1"):
        parity.compare(Port(), Original(), x)
