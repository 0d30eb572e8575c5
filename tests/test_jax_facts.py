"""Every published shape, parameter and MAC of the JAX networks; abstract evaluation, so nothing is computed."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any

import compiling
import facts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from alexnet_io.command_line.train_settings import MODELS, TrainSettings
from jax_alexnet.initialization import initializers
from jax_alexnet.layer_specs import Conv, Dense, LocalConv
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.recipes import resolve
from jax_alexnet.summary import summarize
from jax_alexnet.variants import VARIANTS


def abstract(model: str, image_size: int, classes: int | None = None) -> tuple[dict, dict]:
    """Shapes of ({layer: {"kernel", "bias"}}, {layer: activation}) for one image."""
    network = AlexNet(model, classes)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), images)
    order: list[str] = []

    def run(weights: dict, images: jax.Array) -> Any:
        logits, activations = network.apply(weights, images, capture=True)
        order.extend(activations)  # JAX sorts the names of what it returns
        return logits, activations

    logits, activations = jax.eval_shape(run, weights, images)
    activations = {name: activations[name] for name in order}
    assert logits.shape == (1, classes or facts.NETWORKS[model].classes)
    assert list(weights) == ["params"]
    return weights["params"], activations


def channels_last(shape: facts.Shape) -> facts.Shape:
    return (*shape[1:], shape[0])


def equations(jaxpr, form: int = -1, outer: str = "") -> Iterator[tuple[Any, str]]:
    """All equations of a traced program with their scopes, those inside calls included.

    Of forms for different platforms, the one numbered `form` is followed: the first or, with -1, the last.
    """
    for equation in jaxpr.eqns:
        scope = "/".join(filter(None, (outer, str(equation.source_info.name_stack))))
        yield equation, scope
        for name, value in equation.params.items():
            chosen = value[form] if name == "branches" else value
            inner = getattr(chosen, "jaxpr", chosen)
            if hasattr(inner, "eqns"):
                yield from equations(inner, form, scope)


def executed_macs(model: str, image_size: int, classes: int | None = None, form: int = -1) -> Counter[str]:
    """Multiplications that the traced program does, by the layer they belong to.

    A convolution takes, for each output value, the kernel values of one output feature; a matrix product, the
    contracted length. Counted from the program itself, not from the tables that built it.
    """
    network = AlexNet(model, classes)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    weights = jax.eval_shape(network.init, jax.random.key(0), images)
    traced = jax.make_jaxpr(lambda w, x: network.apply(w, x))(weights, images)
    counts: Counter[str] = Counter()
    for equation, scope in equations(traced.jaxpr, form):
        output = equation.outvars[0].aval.shape
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = equation.params["dimension_numbers"].rhs_spec[0]
            each = prod(kernel) // kernel[features]
        elif equation.primitive.name == "ffi_call":  # oneDNN's convolution; features come last in its kernel
            each = prod(equation.invars[1].aval.shape[:-1])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            each = prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        else:
            continue
        layer = scope.split("/")[1]
        counts[layer] += prod(output) * each
    counts.pop("avgpool", None)  # averages as matrix products: no weights
    return counts


def test_the_models_are_those_of_the_sources() -> None:
    assert set(facts.NETWORKS) == set(VARIANTS) == set(MODELS)
    for name, network in facts.NETWORKS.items():
        assert (VARIANTS[name].image_size, VARIANTS[name].classes) == (network.image_size, network.classes)


def test_the_default_model_is_the_notebooks() -> None:
    images = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    weights = jax.eval_shape(AlexNet().init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == facts.NETWORKS["single_column"].parameters


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_layers_in_order_with_shapes_and_parameters(model: str) -> None:
    expected = facts.NETWORKS[model]
    params, activations = abstract(model, expected.image_size)
    assert list(activations) == list(expected.layers)
    for name, layer in expected.layers.items():
        assert activations[name].shape == (1, *channels_last(layer.output)), name
        assert sum(leaf.size for leaf in jax.tree.leaves(params.get(name, {}))) == layer.parameters, name
    assert set(params) == {name for name, layer in expected.layers.items() if layer.parameters}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected.parameters


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_macs_of_the_traced_program(model: str) -> None:
    expected = facts.NETWORKS[model]
    for form in (0, -1):
        counts = executed_macs(model, expected.image_size, form=form)
        assert dict(counts) == {name: layer.macs for name, layer in expected.layers.items() if layer.macs}
    assert counts.total() == expected.macs


@pytest.mark.parametrize("size", facts.OTHER_SIZES, ids=lambda size: f"{size.model}-{size.image_size}-{size.classes}")
def test_other_sizes(size: facts.OtherSize) -> None:
    params, activations = abstract(size.model, size.image_size, size.classes)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size.parameters
    for name, shape in (size.outputs or {}).items():
        assert activations[name].shape == (1, *channels_last(shape)), name
    if size.macs is not None:
        assert executed_macs(size.model, size.image_size, size.classes).total() == size.macs


@pytest.mark.parametrize(
    ("model", "layer", "kernel", "bias"),
    [
        ("single_column", "conv1", (11, 11, 3, 96), (96,)),
        ("single_column", "conv2", (5, 5, 96, 256), (256,)),
        # https://github.com/tensorflow/tensorflow/issues/45751
        ("two_column", "conv2", (5, 5, 48, 256), (256,)),
        ("two_column", "conv3", (3, 3, 256, 384), (384,)),
        ("two_column", "conv4", (3, 3, 192, 384), (384,)),
        ("two_column", "conv5", (3, 3, 192, 256), (256,)),
        ("two_column", "fc6", (9216, 4096), (4096,)),
        ("one_weird_trick", "conv1", (11, 11, 3, 64), (64,)),
        ("cifar_13pct", "local3", (6, 6, 3, 3, 64, 32), (6, 6, 32)),
        ("cifar_18pct", "fc10", (1024, 10), (10,)),
    ],
)
def test_kernel_layouts(model: str, layer: str, kernel: tuple[int, ...], bias: tuple[int, ...]) -> None:
    """HWIO with the inputs of one group; dense (in, out); unshared kernels by position."""
    params, _ = abstract(model, facts.NETWORKS[model].image_size)
    assert params[layer]["kernel"].shape == kernel
    assert params[layer]["bias"].shape == bias


# --- The summary


@pytest.mark.parametrize("model", facts.NETWORKS)
def test_summary_figures(model: str) -> None:
    expected = facts.NETWORKS[model]
    summary = summarize(VARIANTS[model])
    assert (summary["parameters"], summary["macs"]) == (expected.parameters, expected.macs)
    if expected.units is not None:
        assert summary["units"] == expected.units
    rows = {row["name"]: (tuple(row["output_shape"]), row["parameters"], row["macs"]) for row in summary["layers"]}
    assert list(rows) == list(expected.layers)
    for name, layer in expected.layers.items():
        assert rows[name] == (channels_last(layer.output), layer.parameters, layer.macs), name


@pytest.mark.parametrize("size", facts.OTHER_SIZES, ids=lambda size: f"{size.model}-{size.image_size}-{size.classes}")
def test_summary_of_other_sizes(size: facts.OtherSize) -> None:
    summary = summarize(VARIANTS[size.model], size.image_size, size.classes)
    assert summary["parameters"] == size.parameters
    if size.macs is not None:
        assert summary["macs"] == size.macs
    shapes = {row["name"]: tuple(row["output_shape"]) for row in summary["layers"]}
    for name, shape in (size.outputs or {}).items():
        assert shapes[name] == channels_last(shape), name


def run_summary(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jax_alexnet.summary", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "parameters", "macs"),
    [
        ([], 58_322_314, 1_131_201_056),
        (["--model", "two_column"], 60_965_224, 724_406_816),
        (["--model", "one_weird_trick"], 61_100_840, 714_188_480),
        (["--model", "single_column", "--classes", "1000"], 62_378_344, 1_135_256_096),
        (["--model", "cifar_11pct", "--image-size", "32"], 1_901_386, 32_919_552),
    ],
)
def test_summary_command(arguments: list[str], parameters: int, macs: int) -> None:
    done = run_summary(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert (summary["parameters"], summary["macs"]) == (parameters, macs)
    assert sum(layer["parameters"] for layer in summary["layers"]) == parameters
    assert {"name", "output_shape", "parameters", "macs"} <= set(summary["layers"][0])
    table = run_summary(*arguments).stdout
    assert f"{parameters:,}" in table
    assert f"{macs:,}" in table


def test_summary_command_names_the_smallest_size() -> None:
    done = run_summary("--model", "one_weird_trick", "--image-size", str(facts.TORCHVISION_MIN_SIZE - 1))
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert f"{facts.TORCHVISION_MIN_SIZE}x{facts.TORCHVISION_MIN_SIZE}" in done.stderr


# --- Recipes


@pytest.mark.parametrize("name", facts.RECIPES)
def test_recipe_figures(name: str) -> None:
    expected, run = facts.RECIPES[name], resolve(TrainSettings(recipe=name, data="cifar10"))
    assert (run.batch_size, run.learning_rate) == (expected.batch, expected.learning_rate)
    assert run.weight_decay == expected.weight_decay
    assert run.optimizer == {"blog": "adam", "torchvision": "sgd"}.get(name, "paper")
    if expected.momentum is not None:
        assert run.momentum == expected.momentum
    if expected.weight_decay:
        assert run.decay_biases == expected.biases_decay
    assert run.bias_learning_rate_factor == expected.bias_rate
    assert run.drop_factor == 0.1
    schedules = {
        "blog": ("constant", None),
        "paper": ("plateau", None),
        "caffe": ("every_steps", facts.CAFFE_STEP_ITERATIONS),
        "torchvision": ("every_epochs", facts.TORCHVISION_STEP_EPOCHS),
    }
    assert (run.schedule, run.drop_every) == schedules[name]
    inputs = {
        "blog": ("half", False, False, False),
        "paper": ("mean_image", True, True, True),
        "caffe": ("mean_image", True, True, False),
        "torchvision": ("imagenet", True, True, False),
    }
    assert (run.normalize, run.crop, run.flip, run.color_noise) == inputs[name]
    assert run.epochs == (expected.epochs or 90)  # Caffe's 450,000 iterations of 256 are 90 epochs


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar_recipe_figures(model: str) -> None:
    expected, run = facts.CIFAR_RECIPES[model], resolve(TrainSettings(model=model, data="cifar10"))
    assert (run.recipe, run.optimizer, run.batch_size) == ("cifar", "paper", 128)
    assert (run.learning_rate, run.momentum) == (expected.learning_rate, expected.momentum)
    assert (run.bias_learning_rate_factor, run.decay_biases) == (expected.bias_rate, False)
    assert dict(VARIANTS[model].weight_decay) == expected.weight_decay
    assert run.image_size == facts.NETWORKS[model].image_size
    cropped = model in facts.CIFAR_CROP
    assert (run.normalize, run.crop, run.flip) == ("mean_image", cropped, cropped)
    if model == "cifar_18pct":
        assert tuple(run.drop_epochs or ()) == facts.CIFAR_18PCT_MILESTONES


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar_decay_and_rates_by_layer(model: str) -> None:
    """One step of the paper's update from weights of 1: -rate (gradient + decay), biases twice as fast, undecayed."""
    expected, network = facts.CIFAR_RECIPES[model], VARIANTS[model]
    layers = {layer: {"kernel": jnp.ones(1), "bias": jnp.ones(1)} for layer in expected.weight_decay}
    optimizer = make_optimizer(resolve(TrainSettings(model=model, data="cifar10")), network, layers)
    rate = jnp.asarray(expected.learning_rate)
    for gradient in (0.0, 1.0):
        grads = jax.tree.map(lambda leaf, g=gradient: jnp.full_like(leaf, g), layers)
        updates: Any = optimizer.update(grads, optimizer.init(layers), layers, learning_rate=rate)[0]
        for layer, decay in expected.weight_decay.items():
            assert updates[layer]["kernel"].item() == pytest.approx(-1e-3 * (gradient + decay), rel=1e-12, abs=0)
            assert updates[layer]["bias"].item() == pytest.approx(-2e-3 * gradient, rel=1e-12, abs=0)


# --- Initial weights


def initial_statistics(model: str, image_size: int) -> dict[str, Any]:
    """Mean, standard deviation, largest magnitude and count of each fresh kernel and bias.

    The hidden fully connected layers are narrowed to 64, since drawing millions of numbers takes seconds.
    """
    variant = VARIANTS[model]
    narrow = tuple(
        replace(row, features=64) if isinstance(row, Dense) and row.features else row for row in variant.layers
    )
    network = AlexNet(replace(variant, layers=narrow), classes=50)
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)

    @partial(jax.jit, compiler_options=compiling.LOOPS)  # a loop over millions of numbers
    def measure(key: jax.Array) -> Any:
        params = network.init(key, images)["params"]
        return jax.tree.map(lambda w: (w.mean(), w.std(), jnp.abs(w).max(), w.size), params)

    return measure(jax.random.key(7, impl="rbg"))  # compiles much faster than the default


@pytest.mark.parametrize("model", facts.INITIALISATION)
def test_initial_laws_of_every_layer(model: str) -> None:
    """Normal of the stated deviation about zero, constant biases, also by way of the network's own recipe.

    Five standard errors are allowed.
    """
    rows = {row.name: row for row in VARIANTS[model].layers if isinstance(row, Conv | LocalConv | Dense)}
    assert set(rows) == set(facts.INITIALISATION[model])
    own = resolve(TrainSettings(model=model, data="cifar10")).weight_init
    for scheme, (layer, (std, bias)) in product({"variant", own}, facts.INITIALISATION[model].items()):
        kernel, constant = (
            np.asarray(law(jax.random.key(1), (10_000,), jnp.float32))
            for law in initializers(rows[layer], scheme or "", fan_in=100)
        )
        assert abs(kernel.mean()) < 5 * std / 100, layer
        assert abs(kernel.std() - std) < 5 * std / 20_000**0.5, layer
        assert np.abs(kernel).max() > 3 * std, f"{layer} is not normal"
        assert_array_equal(constant, np.float32(bias), err_msg=layer)


def test_initial_weights_of_a_network_are_of_its_laws() -> None:
    model = "cuda_convnet_2012"
    measured = initial_statistics(model, image_size=40)
    for layer, (std, bias) in facts.INITIALISATION[model].items():
        mean, deviation, _, count = (float(value) for value in measured[layer]["kernel"])
        assert abs(mean) < 5 * std / count**0.5, layer
        assert abs(deviation - std) < 5 * std / (2 * count) ** 0.5, layer
        assert [float(value) for value in measured[layer]["bias"][:3]] == [bias, 0, abs(bias)], layer


def test_initial_weights_of_a_network_with_pytorchs_default() -> None:
    """Weights and biases uniform within 1 / sqrt(fan in): deviation 1 / sqrt(3 fan in)."""
    measured = initial_statistics("single_column", image_size=67)
    fan_ins = {"conv1": 363, "conv2": 2400, "conv3": 2304, "conv5": 3456, "fc6": 9216, "fc7": 64}
    for layer, fan_in in fan_ins.items():
        for kind in ("kernel", "bias"):
            _, deviation, largest, count = (float(value) for value in measured[layer][kind])
            assert largest <= fan_in**-0.5 * (1 + 1e-6), layer
            assert largest > fan_in**-0.5 * (1 - 20 / count), layer
            assert abs(deviation - (3 * fan_in) ** -0.5) < 5 * (3 * fan_in * count) ** -0.5, layer


@pytest.mark.parametrize(("scheme", "like"), [("paper", "two_column"), ("caffe", "caffe_alexnet")])
@pytest.mark.parametrize("model", VARIANTS)
def test_laws_of_a_scheme_on_any_network(scheme: str, like: str, model: str) -> None:
    """Layers of the paper's names as there, any other as its plain ones: 0.01 and no bias."""
    for row in VARIANTS[model].layers:
        if isinstance(row, Conv | LocalConv | Dense):
            std, bias = facts.INITIALISATION[like].get(row.name, (0.01, 0.0))
            kernel, constant = (
                np.asarray(law(jax.random.key(3), (10_000,), jnp.float32))
                for law in initializers(row, scheme, fan_in=100)
            )
            assert abs(kernel.std() - std) < 5 * std / 20_000**0.5, row.name
            assert_array_equal(constant, np.float32(bias), err_msg=row.name)


@pytest.mark.parametrize("model", ["single_column", "one_weird_trick"])
def test_laws_of_networks_with_pytorchs_default(model: str) -> None:
    """https://github.com/n2cholas/jax-resnet/issues/3: deviation 0.0303030 in conv1 and 0.0060141 in fc6."""
    own = resolve(TrainSettings(model=model, data="cifar10")).weight_init
    for row, scheme in product(VARIANTS[model].layers, {"variant", own}):
        if isinstance(row, Conv | Dense):
            for fan_in, (std, bound) in facts.DEFAULT_STD.items():
                for law in initializers(row, scheme or "", fan_in):
                    draws = np.asarray(law(jax.random.key(2), (10_000,), jnp.float32))
                    assert bound * 0.99 < np.abs(draws).max() < bound * (1 + 1e-6), row.name
                    assert abs(draws.std() - std) < 0.02 * std, row.name
