"""The PyTorch reference's networks against the published figures, the float64 loops and torchvision."""

from functools import partial
from typing import Any

import facts
import numpy as np
import oracles
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose
from torch import nn

from alexnet_io.errors import UserError
from torch_ref.alexnet import HAVE_COLUMNS, HAVE_DROPOUT, VARIANTS, build
from torch_ref.network import Network

COLUMNS = ("two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet")
CEIL_CONV1 = ("two_column", "cuda_convnet_2012", "one_weird_trick_lrn")
FLOOR_POOLS = ("single_column", "one_weird_trick")
AVERAGE_POOLS = tuple((name, pool) for name in ("cifar_18pct", "cifar_80sec") for pool in ("pool2", "pool3"))
# By hand, backwards from a last pool of one value. Floor pools: 1 <- 3 <- 7 <- 15 values after conv1; ceil
# pools: 1 <- 2 <- 4 <- 8. Then conv1: 11 + 14 * 4, less its padding of 2 + 2; 11 + 7 * 4 in floor mode, 11 + 6 *
# 4 + 1 in ceil mode.
SMALLEST = {
    "single_column": 67,
    "two_column": 36,
    "cuda_convnet_2012": 36,
    "caffe_alexnet": 39,
    "caffenet": 39,
    "one_weird_trick": facts.TORCHVISION_MIN_SIZE,
    "one_weird_trick_lrn": 36,
    "cifar_18pct": 8,
    "cifar_13pct": 4,
    "cifar_11pct": 4,
    "cifar_80sec": 8,
}


class Trace:
    """Inputs and outputs of every named layer of one forward pass, in running order."""

    def __init__(self, network: Network, images: torch.Tensor) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        handles = [layer.register_forward_hook(partial(self._record, name)) for name, layer in network.named_children()]
        self.logits = network(images)
        for handle in handles:
            handle.remove()

    def _record(self, name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        assert name not in self.outputs, f"{name} ran twice"
        self.inputs[name], self.outputs[name] = inputs[0], output


def build_without_memory(model: str, **settings) -> Network:
    with torch.device("meta"):
        return build(model, **settings).eval()


def parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def macs(layer: nn.Module, output: torch.Tensor) -> int:
    """Weight multiplications for one image: every weight once per position it is used at."""
    weight = getattr(layer, "weight", None)
    if weight is None:
        return 0
    return weight.numel() * (output.shape[2] * output.shape[3] if isinstance(layer, nn.Conv2d) else 1)


def test_the_variants_are_those_of_the_sources() -> None:
    assert {name: (entry.image_size, entry.classes) for name, entry in VARIANTS.items()} == {
        name: (network.image_size, network.classes) for name, network in facts.NETWORKS.items()
    }


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_layers_shapes_parameters_and_macs(model: str) -> None:
    expected = facts.NETWORKS[model]
    network = build_without_memory(model)
    side = expected.image_size
    trace = Trace(network, torch.empty(2, 3, side, side, device="meta"))
    layers = dict(network.named_children())
    assert list(layers) == list(trace.outputs) == list(expected.layers)
    for name, layer in expected.layers.items():
        output = trace.outputs[name]
        # torchvision drops the flattened map before fc6; the figures list it as it left the pool.
        shape = (int(np.prod(layer.output)),) if output.ndim == 2 else layer.output
        assert tuple(output.shape) == (2, *shape), name
        assert parameters(layers[name]) == layer.parameters, name
        assert macs(layers[name], output) == layer.macs, name
    assert parameters(network) == expected.parameters
    assert sum(macs(layers[name], output) for name, output in trace.outputs.items()) == expected.macs
    assert trace.logits.shape == (2, expected.classes)


@pytest.mark.parametrize("size", facts.OTHER_SIZES, ids=lambda size: f"{size.model}-{size.image_size}-{size.classes}")
def test_other_sizes(size: facts.OtherSize) -> None:
    network = build_without_memory(size.model, classes=size.classes, image_size=size.image_size)
    trace = Trace(network, torch.empty(1, 3, size.image_size, size.image_size, device="meta"))
    assert parameters(network) == size.parameters
    if size.macs is not None:
        layers = dict(network.named_children())
        assert sum(macs(layers[name], output) for name, output in trace.outputs.items()) == size.macs
    for name, shape in (size.outputs or {}).items():
        assert tuple(trace.outputs[name].shape) == (1, *shape), name


def expected_output(model: str, name: str, layer: nn.Module, x: np.ndarray) -> np.ndarray:
    """What the sources say that a layer does, computed by the float64 loops."""
    state = {key: value.numpy() for key, value in layer.state_dict().items()}
    if name.startswith("conv"):
        cifar = model.startswith("cifar")
        padding = 2 if cifar or name == "conv2" else 1
        if name == "conv1" and not cifar:
            padding = 2 if model == "one_weird_trick" else 0
        return oracles.conv(
            x,
            state["weight"],
            state["bias"],
            stride=4 if name == "conv1" and not cifar else 1,
            padding=padding,
            groups=2 if model in COLUMNS and name in ("conv2", "conv4", "conv5") else 1,
            ceil=name == "conv1" and model in CEIL_CONV1,
        )
    if name.startswith("local"):
        return oracles.local_conv(x, state["weight"], state["bias"], padding=1)
    if name.startswith("fc"):
        return x @ state["weight"].T + state["bias"]
    if name.startswith("lrn"):
        return oracles.lrn(x, **facts.LRN_SETTINGS[model]._asdict())
    if name.startswith("rnorm"):
        return oracles.spatial_response_norm(x, **facts.SPATIAL_NORM_SETTINGS[model]._asdict())
    if name.startswith("pool"):
        pool = oracles.avg_pool if (model, name) in AVERAGE_POOLS else oracles.max_pool
        return pool(x, 3, 2, ceil=model not in FLOOR_POOLS)
    if name == "avgpool":
        return oracles.adaptive_avg_pool(x, (6, 6))
    assert name.startswith(("relu", "drop"))
    return np.maximum(x, 0)


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_every_layer_computes_what_the_sources_say(model: str) -> None:
    """In float64, from images that are not square and large enough for LRN to matter."""
    torch.manual_seed(2012)
    height, width = SMALLEST[model] + 1, SMALLEST[model] + 10
    network = build(model, classes=7, image_size=(height, width)).double().train()
    for name, layer in network.named_children():
        if name.startswith("drop"):  # a mask given before the shape is known: every third unit dropped
            layer.register_forward_pre_hook(
                lambda layer, inputs: setattr(
                    layer, "mask", (torch.arange(inputs[0].numel()) % 3 > 0).view_as(inputs[0])
                )
            )
    with torch.no_grad():
        trace = Trace(network, 100 * torch.randn(1, 3, height, width, dtype=torch.float64))
    before = None
    for name, layer in network.named_children():
        x, y = trace.inputs[name], trace.outputs[name]
        assert y.dtype == torch.float64
        if before is not None:
            assert torch.equal(x.flatten(1), before.flatten(1)), f"{name} does not read the layer before it"
        before = y
        if name.startswith("drop"):
            expected = x.numpy() * 2 * (np.arange(x.numel()) % 3 > 0)
        else:
            expected = expected_output(model, name, layer, x.numpy())
        assert_allclose(y.numpy(), expected, rtol=1e-11, atol=1e-13 * np.abs(expected).max(), err_msg=name)
    assert before is trace.logits


TORCHVISION_LAYERS = {  # https://github.com/pytorch/vision/issues/549
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}


@pytest.mark.parametrize("size", [(224, 224), (63, 100)])
def test_one_weird_trick_is_torchvisions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(num_classes=7).double().eval()
    ours = build("one_weird_trick", classes=7).double().eval()
    ours.load_state_dict(
        {
            f"{TORCHVISION_LAYERS[layer]}.{kind}": value
            for layer, _, kind in (key.rpartition(".") for key in theirs.state_dict())
            for value in [theirs.state_dict()[f"{layer}.{kind}"]]
        }
    )
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_allclose(ours(images), theirs(images), rtol=1e-12, atol=1e-14)


def test_one_weird_trick_has_torchvisions_order() -> None:
    """Dropout before fc6 and fc7, no LRN; torchvision flattens between its average pool and its classifier."""
    with torch.device("meta"):
        theirs = torchvision.models.alexnet()
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.Linear: "fc", nn.Dropout: "drop"}
    order = [kinds[type(layer)] for layer in theirs.features]
    order += ["avgpool"] + [kinds[type(layer)] for layer in theirs.classifier]
    ours = [name.rstrip("0123456789") for name, _ in build_without_memory("one_weird_trick").named_children()]
    assert ours == order


@pytest.mark.parametrize("model", COLUMNS)
@pytest.mark.parametrize("name", ["conv2", "conv4", "conv5"])
def test_columns_do_not_talk_in_grouped_layers(model: str, name: str) -> None:
    """https://github.com/tensorflow/tensorflow/issues/45751: what one column reads must not move the other."""
    layer = dict(build_without_memory(model).named_children())[name].to_empty(device="cpu")
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.shape[1] == layer.in_channels // 2
    layer.reset_parameters()
    x = torch.randn(1, layer.in_channels, 5, 5)
    changed = x.clone()
    changed[:, : layer.in_channels // 2] += 1
    before, after = layer(x).chunk(2, dim=1), layer(changed).chunk(2, dim=1)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("model", [*HAVE_COLUMNS, "caffe_alexnet"])
@pytest.mark.parametrize("span", [False, True])
@pytest.mark.parametrize("name", facts.COLUMN_CHANNELS)
def test_lrn_windows_cross_columns_only_when_told(model: str, span: bool, name: str) -> None:
    if model not in HAVE_COLUMNS and span:
        span = False  # Caffe's windows span by themselves
    layer = dict(build_without_memory(model, span_columns=span).named_children())[name]
    edge = facts.COLUMN_CHANNELS[name]
    x = torch.randn(1, 2 * edge, 1, 1, dtype=torch.float64, requires_grad=True)
    layer(x)[0, edge - 1].backward()
    assert x.grad is not None
    assert x.grad[0, edge - 2].item() != 0
    assert (x.grad[0, edge].item() == 0) == (model in HAVE_COLUMNS and not span)


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_smallest_size(model: str) -> None:
    smallest = SMALLEST[model]
    assert build_without_memory(model).smallest_image_size() == smallest
    network = build_without_memory(model, image_size=smallest)
    assert network(torch.empty(1, 3, smallest, smallest, device="meta")).shape == (
        1,
        facts.NETWORKS[model].classes,
    )
    with pytest.raises(UserError, match=f"{smallest - 1}x{smallest} are too small.*{smallest}x{smallest}"):
        build_without_memory(model, image_size=(smallest - 1, smallest))


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_images_that_cannot_be_used_are_refused(model: str) -> None:
    network = build_without_memory(model)
    side, smallest = facts.NETWORKS[model].image_size, SMALLEST[model]
    cases = {
        (3, side, side): "3 dimensions.*batch dimension",
        (1, 4, side, side): "4 channels",
        (1, 1, side, side): "1 channels",
        (1, side, side, 3): "channels last",
        (1, 3, smallest - 1, side): f"{smallest - 1}x{side} are too small",
        (1, 3, side, smallest - 1): f"{side}x{smallest - 1} are too small",
        (1, 3, 0, side): f"0x{side} are too small",
    }
    for shape, message in cases.items():
        with pytest.raises(UserError, match=f"{message}.*at least {smallest}"):
            network(torch.empty(shape, device="meta"))
    with pytest.raises(UserError, match="uint8"):
        network(torch.empty(1, 3, side, side, dtype=torch.uint8, device="meta"))


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_a_network_refuses_sizes_it_was_not_built_for(model: str) -> None:
    """Unless its last map is averaged to 6x6. The same number of values in another shape is refused as well."""
    side = facts.NETWORKS[model].image_size
    network = build_without_memory(model)
    other = torch.empty(1, 3, side + 33, side, device="meta")
    if model in FLOOR_POOLS:
        assert network(other).shape == (1, facts.NETWORKS[model].classes)
        return
    layer = {"cifar_80sec": "fc64"}.get(model, "fc10") if model.startswith("cifar") else "fc6"
    with pytest.raises(UserError, match=f"{side + 33}x{side}.*{layer}.*built for {side}x{side}.*image_size"):
        network(other)
    turned = build_without_memory(model, image_size=(side + 33, side))
    assert turned(other).shape == (1, facts.NETWORKS[model].classes)
    with pytest.raises(UserError, match=f"{side}x{side + 33}"):
        turned(other.transpose(2, 3))


def test_widths_on_the_way_away_from_the_usual_sizes() -> None:
    """https://github.com/torch/nn/issues/116: ceil and floor pools agree at the usual sizes and nowhere near."""
    trace = Trace(build_without_memory("caffe_alexnet"), torch.empty(1, 3, 224, 224, device="meta"))
    widths = tuple(trace.outputs[name].shape[3] for name in ("conv1", "pool1", "pool2", "pool5"))
    assert widths == facts.MAP_TRACES[224, 0, True]
    trace = Trace(build_without_memory("one_weird_trick"), torch.empty(1, 3, 227, 227, device="meta"))
    widths = tuple(trace.outputs[name].shape[3] for name in ("conv1", "pool1", "pool2", "pool5"))
    assert widths == facts.MAP_TRACES[227, 2, False]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "two_colum"}, ["two_colum", "did you mean two_column", "cifar_11pct"]),
        ({"model": "vgg"}, ["vgg", "caffenet"]),
        ({"model": "caffenet", "classes": 0}, ["0 classes", "1 or more"]),
        ({"model": "caffenet", "image_size": 0}, ["0x0", "39x39"]),
        ({"model": "cifar_18pct", "image_size": -32}, ["-32x-32", "8x8"]),
        ({"model": "caffenet", "image_size": (227, 227, 3)}, ["(227, 227, 3)", "(height, width)"]),
        ({"model": "caffenet", "span_columns": True}, ["caffenet", "two_column", "cuda_convnet_2012"]),
        ({"model": "cifar_18pct", "dropout": 0.5}, ["cifar_18pct", "no dropout", "caffenet"]),
        ({"model": "caffenet", "dropout": 1.5}, ["1.5", "[0, 1)"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_without_memory(**settings)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("model", HAVE_DROPOUT)
def test_dropout_rates(model: str) -> None:
    for settings, rate in [({}, 0.5), ({"dropout": 0.1}, 0.1)]:
        layers = dict(build_without_memory(model, **settings).named_children())
        rates = [layers[name].rate for name in ("drop6", "drop7")]
        assert rates == [rate, rate]


@pytest.mark.parametrize(("source", "target"), [("one_weird_trick", "single_column"), ("two_column", "single_column")])
def test_weights_of_another_variant_do_not_load(source: str, target: str) -> None:
    weights = build_without_memory(source, classes=10).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for conv2\.weight"):
        build_without_memory(target, classes=10).load_state_dict(weights)
