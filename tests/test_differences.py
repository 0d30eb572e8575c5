"""The record of differences: its page names options and tests that exist, and by hand what no other test holds."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.train_settings import MODELS, TrainSettings
from jax_alexnet import augment as jax_augment
from jax_alexnet import layers as jax_layers
from jax_alexnet.model import AlexNet
from jax_alexnet.recipes import resolve
from jax_alexnet.variants import VARIANTS
from torch_ref import augment as torch_augment
from torch_ref import resolved_settings
from torch_ref.alexnet import build
from torch_ref.layers import Dropout

ROOT = Path(__file__).parents[1]
FLAGS = {flag.spelling: flag for cls in (EvaluateSettings, TrainSettings) for flag in flags_of(cls)}
IMAGENET = [name for name in MODELS if not name.startswith("cifar")]


# --- the page ---------------------------------------------------------------------------------------------


def rows() -> Iterator[dict[str, str]]:
    """Each row of the page's tables, by column."""
    head: list[str] = []
    for line in (ROOT / "docs" / "differences.md").read_text().splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            head = []
        elif not head:
            head = cells
        elif set(cells[0]) != {"-"}:
            yield dict(zip(head, cells, strict=True))


ROWS = {row["what"]: row for row in rows()}


@cache
def functions_in(file: str) -> set[str]:
    """The test functions of a file beside this one."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_page_has_every_difference() -> None:
    said = " ".join(ROWS).lower()
    for word in (
        "input", "55x55", "groups", "order in layer 1", "order in layer 2", "alpha", "k and size", "windows", "pools",
        "dropout", "scale of dropout", "weights, conv1", "weights, fc6", "biases of", "biases' learning rate",
        "biases' decay", "weight decay", "momentum", "rate falls", "batch", "mean", "training crop", "colour noise",
        "views", "fine-tuning",
    ):  # fmt: skip
        assert word in said, word


@pytest.mark.parametrize("what", ROWS)
def test_options_of_the_page_exist(what: str) -> None:
    """Words behind a flag are its values; a flag of its own, of training or evaluation."""
    words = re.findall(r"`([^`]+)`", ROWS[what]["option here"])
    assert any(word.startswith("--") for word in words), "no option"
    flag, several = None, False
    for word in words:
        name, _, value = word.partition(" ")
        if name.startswith("--"):
            flag, several = FLAGS[name], bool(value)
        else:
            value = word
        if value:
            assert flag is not None
            if flag.spelling == "--model" or several:
                flag.check(flag.read(value))
            else:
                assert value in MODELS, word


@pytest.mark.parametrize("what", ROWS)
def test_tests_of_the_page_exist(what: str) -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", ROWS[what]["held by"])
    assert named and len(named) == ROWS[what]["held by"].count("`") // 2
    for file, function in named:
        assert function in functions_in(file), f"{file} has no {function}"


# --- the networks, by hand ----------------------------------------------------------------------------------


def jax_activation(model: str, layer: str, kernel: float, bias: float) -> np.ndarray:
    """What a layer puts out for an image of ones where conv1's weights are all equal: (height, width, channel)."""
    network = AlexNet(model, classes=2, dtype=jnp.dtype("float64"), param_dtype=jnp.dtype("float64"))
    images = np.ones((1, VARIANTS[model].image_size, VARIANTS[model].image_size, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]

    @jax.jit
    def run(images: jax.Array) -> jax.Array:  # what comes after the layer is left out by the compiler
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        kernels, biases = params["conv1"]["kernel"], params["conv1"]["bias"]
        params["conv1"] = {"kernel": jnp.full_like(kernels, kernel), "bias": jnp.full_like(biases, bias)}
        seen: Any = network.apply({"params": params}, images, capture=True)[1]
        return seen[layer][0]

    return np.asarray(run(images))


def torch_activation(model: str, layer: str, kernel: float, bias: float) -> np.ndarray:
    """The same of the reference."""
    with torch.device("meta"):
        network = build(model, classes=2)
    conv1 = network.get_submodule("conv1").to_empty(device="cpu").double()
    torch.nn.init.constant_(conv1.get_parameter("weight"), kernel)
    torch.nn.init.constant_(conv1.get_parameter("bias"), bias)
    x = torch.ones(1, 3, *2 * [VARIANTS[model].image_size], dtype=torch.float64)
    with torch.no_grad():
        for name, child in network.named_children():
            x = child(x)
            if name == layer:
                return x[0].numpy().transpose(1, 2, 0)
    raise AssertionError(layer)


ACTIVATION: dict[str, Callable[[str, str, float, float], np.ndarray]] = {
    "jax": jax_activation,
    "torch": torch_activation,
}
# Pixels under the window of the first map's value in the first row and column, and of the last in either, in a row.
# 55 windows of 11 pixels 4 apart: the last begins at 216, with 8 of 224 pixels under it, or with all 11 of 227; with
# two zeros before them the first has 9 pixels, and the last begins at 214.
SEEN = {
    "two_column": (11, 8),
    "cuda_convnet_2012": (11, 8),
    "one_weird_trick_lrn": (11, 8),
    "caffe_alexnet": (11, 11),
    "caffenet": (11, 11),
    "single_column": (11, 11),
    "one_weird_trick": (9, 10),
}


@pytest.mark.parametrize("side", ACTIVATION)
@pytest.mark.parametrize("model", SEEN)
def test_zeros_around_the_image(model: str, side: str) -> None:
    """conv1 of ones on an image of ones counts the values under each window."""
    first, last = SEEN[model]
    counted = ACTIVATION[side](model, "conv1", 1.0, 0.0)[..., 0]
    assert counted.shape == (55, 55)
    corners = [counted[0, 0], counted[0, 54], counted[54, 0], counted[54, 54], counted[27, 27]]
    assert corners == [3 * first**2, 3 * first * last, 3 * first * last, 3 * last**2, 363]


# x / (k + alpha * sum)^0.75 of channels that are all 100, so that alpha * 100^2 is 1, or 1/5 or 1/2 where it is divided
# by the window; in the first channel, one with all its neighbours, the last of column one and the first of column two.
NORMED = {
    "two_column": (5**-0.75, 7**-0.75, 5**-0.75, 5**-0.75),
    "cuda_convnet_2012": (2.6**-0.75, 3**-0.75, 2.6**-0.75, 2.6**-0.75),
    "caffe_alexnet": (1.6**-0.75, 2**-0.75, 2**-0.75, 2**-0.75),
    "caffenet": (1.6**-0.75, 2**-0.75, 2**-0.75, 2**-0.75),
    "single_column": (1.5**-0.75, 2**-0.75, 2**-0.75, 2**-0.75),
    "one_weird_trick_lrn": (2.6**-0.75, 3**-0.75, 3**-0.75, 3**-0.75),
}


@pytest.mark.parametrize("side", ACTIVATION)
@pytest.mark.parametrize("model", NORMED)
def test_norms_of_the_networks_by_hand(model: str, side: str) -> None:
    normed = ACTIVATION[side](model, "lrn1", 0.0, 100.0)[5, 5]
    assert_allclose(normed[[0, 20, 47, 48]], 100 * np.array(NORMED[model]), rtol=1e-13)


ORDERS = {
    "two_column": ("paper [P]", "conv2 relu2 lrn2 pool2"),
    "cuda_convnet_2012": ("released code [S]", "conv2 relu2 lrn2 rnorm2 pool2"),
    "caffe_alexnet": ("Caffe [K]", "conv2 relu2 lrn2 pool2"),
    "caffenet": ("Caffe [K]", "conv2 relu2 pool2 lrn2"),
    "one_weird_trick": ("torchvision [TV]", "conv2 relu2 pool2"),
    "single_column": ("the blog [SD]", "conv2 relu2 lrn2 pool2"),
}


@pytest.mark.parametrize("model", ORDERS)
def test_order_of_norm_pool_and_relu(model: str) -> None:
    """Of both networks as the page and the sources have it."""
    source, second = ORDERS[model]
    with torch.device("meta"):
        ours = [name for name, _ in build(model).named_children()]
    names = [row.name for row in VARIANTS[model].layers]
    cell = ROWS["order in layer 1"][source]
    first = cell.partition("CaffeNet:")[2] if model == "caffenet" else cell.partition(";")[0]
    expected = [f"{'lrn' if kind == 'norm' else kind}1" for kind in first.split()]
    for order in (names, ours):
        assert order[: order.index("conv2")] == expected
        assert " ".join(order[order.index("conv2") : order.index("conv3")]) == second


def test_dropout_doubles_in_training_what_the_paper_halves_at_test() -> None:
    """Both learn the same where the kernels after it start halved, at a quarter of the rate and 4 times the decay."""
    x, mask = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[True, False, True, False]])
    drop = jax_layers.Dropout(0.5)
    trained = drop.apply({}, jnp.asarray(x), train=True, mask=jnp.asarray(mask))
    tested = drop.apply({}, jnp.asarray(x), train=False)
    reference = Dropout(0.5).train()
    reference.mask = torch.from_numpy(mask)
    for training, testing in (
        (np.asarray(trained), np.asarray(tested)),
        (reference(torch.from_numpy(x)).numpy(), reference.eval()(torch.from_numpy(x)).numpy()),
    ):
        assert training.tolist() == [[2.0, 0.0, 6.0, 0.0]] and testing.tolist() == x.tolist()
    # The paper's unit w.(mask x), halved at test, and ours; then a step of rate 0.1 and decay 0.5 on the loss z^2 / 2.
    paper, ours = np.array([0.25, -0.5, 1.0, 2.0]), np.array([0.125, -0.25, 0.5, 1.0])
    z = (mask * x)[0] @ paper
    assert np.asarray(trained)[0] @ ours == z == 3.25
    paper = paper - 0.1 * (z * (mask * x)[0] + 0.5 * paper)
    ours = ours - 0.025 * (z * np.asarray(trained)[0] + 2.0 * ours)
    assert_allclose(ours, paper / 2, rtol=1e-15)
    assert_allclose(np.asarray(tested)[0] @ ours, 0.5 * (x[0] @ paper), rtol=1e-15)


@pytest.mark.parametrize(("model", "places"), [("two_column", 33), ("caffe_alexnet", 30), ("one_weird_trick", 33)])
def test_places_of_a_training_crop(model: str, places: int) -> None:
    """256 - 224 + 1 a side, as in the released code, which with mirror images makes 2178 where the paper has 2048."""
    settings = TrainSettings(model=model, data="synthetic")
    complete = resolve(settings)
    augmentation = jax_augment.Augmentation.of(complete)
    drawn = jax_augment.draw(jax.random.key(3), jnp.arange(2000, dtype=jnp.int32), augmentation, (256, 256))
    reference = torch_augment.draw(resolved_settings.resolve(settings), 0, 0, 2000, (256, 256))
    assert complete.stored_size == 256
    for found in (drawn, reference):  # each place is missed by a sample of a thousand million million million at most
        assert set(np.asarray(found.top).tolist()) == set(np.asarray(found.left).tolist()) == set(range(places))
        assert set(np.asarray(found.flip).tolist()) == {False, True}
