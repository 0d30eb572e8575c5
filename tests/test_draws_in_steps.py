"""The training steps draw what `test_draws.py` examines: read back from the gradients of a tiny network.

One example of a batch counts, and weights and inputs are positive: then the gradient of the first kernel is zero at
dropped pixels and for dropped hidden units, and elsewhere proportional to the pixels as they were cropped, mirrored and
coloured.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from draw_samples import Jax, Torch
from numpy.testing import assert_allclose
from tiny import CLASSES, QUICKLY, RATES, SIDE, TABLE, UNITS, WEIGHT, TorchNetwork, complete_settings, torch_setup

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import Batch, epoch_order
from jax_alexnet import augment as jax_augment
from jax_alexnet import steps
from jax_alexnet.devices import data_mesh
from jax_alexnet.engine import JaxEngine
from jax_alexnet.layer_specs import Dense, Variant
from jax_alexnet.model import AlexNet
from jax_alexnet.recipes import resolve as jax_resolve
from jax_alexnet.run_setup import init_params, prepare
from torch_ref import augment as torch_augment
from torch_ref import run_setup as torch_setups
from torch_ref.engine import TorchEngine
from torch_ref.layers import Dropout
from torch_ref.processes import Processes
from torch_ref.resolved_settings import resolve
from torch_ref.steps import train_step

# Shares of three: `first + place` is no longer `first | place`.
EXAMPLES, STORED, SEED = 12, (SIDE + 3, SIDE + 2), 2**31 - 1
DONE = (0, 1, 70_000)  # steps done before
SETTINGS = complete_settings(
    seed=SEED,
    image_size=SIDE,
    normalize="unit",
    crop=True,
    flip=True,
    color_noise=True,
    batch_size=EXAMPLES,
)
IMAGES = np.random.default_rng(2012).integers(50, 200, (EXAMPLES, *STORED, 3), np.uint8)
LABELS = np.arange(EXAMPLES, dtype=np.int32) % CLASSES
MEASURED = SimpleNamespace(eigenvalues=np.array([0.2, 0.1, 0.05]) * 255**2, eigenvectors=np.eye(3)[[1, 2, 0]])
ARRAYS = torch_augment.statistics_for(SETTINGS, MEASURED)
LAST = WEIGHT * np.arange(1, CLASSES + 1) * np.ones((UNITS, 1))


def only(place: int) -> np.ndarray:
    """Weights of a batch of which one example is real."""
    return (np.arange(EXAMPLES) == place).astype(np.float32)


def assert_one_examples_draws(gradients: dict[str, np.ndarray], place: int, x: Any, kept: tuple[Any, ...]) -> None:
    """The gradients of one step against the input of its one real example and the masks of all examples.

    Args:
        gradients: of `fc1` and `fc2`: kernels (inputs, units), biases.
        place: of that example.
        x: input (examples, height, width, 3) without dropout.
        kept: of both layers, [place, ...], True where kept.
    """
    pixels, units = (np.asarray(mask[place]).reshape(-1) for mask in kept)
    seen = np.asarray(x[place]).reshape(-1) * pixels / (1 - RATES["drop1"])
    assert 0 < pixels.sum() < pixels.size
    assert ((gradients["fc1 bias"] != 0) == units).all()
    assert_allclose(gradients["fc1 kernel"], np.outer(seen, gradients["fc1 bias"]), rtol=1e-11)
    hidden = WEIGHT * (seen.sum() + 1) * units / (1 - RATES["drop2"])
    assert_allclose(gradients["fc2 kernel"], np.outer(hidden, gradients["fc2 bias"]), rtol=1e-11)


@pytest.fixture
def jax_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray, int], tuple[dict[str, np.ndarray], int]]:
    """(weights of the examples, steps done) -> the compiled training step's gradients on four devices, steps done."""
    monkeypatch.setattr(steps, "compiler_options", lambda platform: QUICKLY)
    mesh = data_mesh(jax.devices()[:4])

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(gradients: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        return init(gradients), gradients

    keep = optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
    model = AlexNet(TABLE, dtype=jnp.dtype(jnp.float64), param_dtype=jnp.dtype(jnp.float64))
    step = steps.make_train_step(model, keep, jax_augment.Augmentation.of(SETTINGS), mesh)
    kernels = {"fc1": np.full((SIDE * SIDE * 3, UNITS), WEIGHT), "fc2": LAST}
    params = {name: {"kernel": kernel, "bias": np.full(kernel.shape[1], WEIGHT)} for name, kernel in kernels.items()}
    key, statistics = Jax().run_key(SEED), steps.replicate(ARRAYS, mesh)

    def run(weights: np.ndarray, done: int) -> tuple[dict[str, np.ndarray], int]:
        state = steps.replicate(steps.TrainState(jnp.int32(done), params, init(params)), mesh)
        batch = steps.split(steps.DeviceBatch(IMAGES, LABELS, weights), mesh)
        after, _ = step(state, batch, jnp.float64(0.0), key, statistics)
        found = jax.device_get(after.opt_state)
        return {f"{layer} {kind}": found[layer][kind] for layer in found for kind in found[layer]}, int(after.step)

    return run


@pytest.mark.multi_device
def test_jax_draws_by_step_and_place_in_the_global_batch(jax_step):
    """On each of four devices, in steps that a run came to or was resumed at: the same to it."""
    for done in DONE:
        x, kept = jax_batch(Jax().run_key(SEED), done)
        for place in range(EXAMPLES):
            gradients, after = jax_step(only(place), done)
            assert_one_examples_draws(gradients, place, x, kept)
            assert after == done + 1


@functools.partial(jax.jit, compiler_options=QUICKLY)
def jax_batch(run_key: jax.Array, done: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Input and masks of a whole batch on one device."""
    augmentation = jax_augment.Augmentation.of(SETTINGS)
    key, dropout_key = steps.step_keys(run_key, done)
    draws = jax_augment.draw(key, jnp.arange(EXAMPLES), augmentation, STORED)
    model, ones = AlexNet(TABLE), jnp.ones((EXAMPLES, SIDE, SIDE, 3))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(model.init, key, ones))
    seen: Any = model.apply(params, ones, train=True, capture=True, rngs={"dropout": dropout_key})[1]
    return jax_augment.apply(IMAGES, draws, augmentation, ARRAYS), (seen["drop1"] > 0, seen["drop2"] > 0)


def test_torch_draws_by_step_and_place_in_the_global_batch():
    """In both of two processes, in steps that a run came to or was resumed at: the same to it."""
    for done, rank, own in product(DONE, range(2), range(EXAMPLES // 2)):
        network = TorchNetwork().double()
        network.fc2.weight.data.copy_(torch.tensor(LAST.T))
        setup = torch_setup(network, SETTINGS, examples=3 * EXAMPLES, rank=rank, count=2, arrays=ARRAYS)
        part, place = slice(rank * EXAMPLES // 2, (rank + 1) * EXAMPLES // 2), rank * EXAMPLES // 2 + own
        train_step(setup, Batch(IMAGES[part], LABELS[part], only(place)[part], np.arange(EXAMPLES)[part]), done, 0.0)

        draws = torch_augment.draw(SETTINGS, done, 0, EXAMPLES, STORED)
        x = torch_augment.network_input(IMAGES, draws, SETTINGS, setup.statistics).permute(0, 2, 3, 1).numpy()
        pixels, units = (mask[0, 0] for mask in Torch().masks([SEED], [done], EXAMPLES))
        found = {
            name.replace("weight", "kernel").replace(".", " "): parameter.grad.numpy().T
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        channels_first = found["fc1 kernel"].reshape(3, SIDE, SIDE, UNITS)
        found["fc1 kernel"] = channels_first.transpose(1, 2, 0, 3).reshape(-1, UNITS)
        assert_one_examples_draws(found, place, x, (pixels.transpose(0, 2, 3, 1), units))


# Where the seed goes


def test_jax_keys_of_weights_steps_augmentation_and_dropout_differ():
    """`--seed` decides all of them, and none is another's."""
    jax_side, seeds, numbers = Jax(), (0, 1, 2, 2**31 - 1), (0, 1, 2, 2**31 - 2)
    keys = [jax.random.key(seed) for seed in seeds]  # of the weights: `setup.init_params`
    runs = [jax_side.run_key(seed) for seed in seeds]
    keys += runs + [key for run in runs for number in numbers for key in steps.step_keys(run, number)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4 + 4 + 2 * 4 * 4


def test_jax_weights_differ_by_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICKLY))
    network = AlexNet(Variant("units", "nothing else", SIDE, CLASSES, "paper", (Dense("fc1", None),)))
    kernels = [np.asarray(init_params(network, SIDE, seed)["fc1"]["kernel"]) for seed in (0, 1, 2**31 - 1)]
    np.testing.assert_array_equal(init_params(network, SIDE, 1)["fc1"]["kernel"], kernels[1])
    largest = np.abs(np.corrcoef([kernel.ravel() for kernel in kernels]) - np.eye(3)).max()
    assert largest < 4.9 / kernels[0].size ** 0.5  # a normal value is further out once in a million times


def test_torchs_keys_of_orders_augmentation_and_dropout_differ(monkeypatch: pytest.MonkeyPatch):
    """NumPy fills keys up with zeros: (seed, epoch) and (seed, epoch, 0) are one."""
    original, states = np.random.SeedSequence, []

    def watched(entropy: Any) -> Any:
        states.append(tuple(original(entropy).generate_state(4).tolist()))
        return original(entropy)

    monkeypatch.setattr(np.random, "SeedSequence", watched)
    for seed, number in product(range(3), range(4)):
        epoch_order(10, seed=seed, epoch=number, shuffle=True)
        torch_augment.draw(replace(SETTINGS, seed=seed), number, 0, 4, STORED)
        Torch().masks([seed], [number], 2)
    assert len(states) == len(set(states)) == 3 * 4 * (1 + 1 + 2)


def test_torchs_seed_decides_weights_masks_and_order(monkeypatch: pytest.MonkeyPatch):
    build = torch_setups.build

    def with_dropout(*words: Any, **more: Any) -> Any:
        network: Any = build(*words, **more)
        network.pool3 = torch.nn.Sequential(network.pool3, Dropout(0.5))
        return network

    monkeypatch.setattr(torch_setups, "build", with_dropout)
    settings = TrainSettings(model="cifar_18pct", data="synthetic:classes=2,train=40,test=2", batch_size=40)
    found: list[tuple[torch.Tensor, torch.Tensor, list[int]]] = []
    for seed in (0, 1, 2**31 - 1, 1):
        setup = torch_setups.prepare(replace(resolve(settings), seed=seed), Processes(0, 1, torch.device("cpu")))
        (layer,) = (layer for layer in setup.network.modules() if isinstance(layer, Dropout))
        setup.masks.at(0, 0)
        setup.network.train()(torch.ones(1, 3, 32, 32))
        assert layer.mask is not None
        weight, ids = setup.network.get_parameter("conv2.weight").detach(), next(setup.order(0)).ids.tolist()
        found.append((weight, layer.mask, ids))
    for kind in range(3):
        assert len({str(np.asarray(some[kind]).tolist()) for some in found}) == 3
        assert str(found[1][kind]) == str(found[3][kind])


def test_orders_follow_seed_and_epoch_and_go_on_where_a_run_stopped():
    """Eleven images in batches of four: three steps an epoch."""
    settings = TrainSettings(
        model="cifar_18pct", data="synthetic:classes=2,train=11,test=2", batch_size=4, devices="1", seed=2**31 - 1
    )
    group = Processes(0, 1, torch.device("cpu"))
    engines = (
        JaxEngine(prepare(jax_resolve(settings)), None),
        TorchEngine(torch_setups.prepare(resolve(settings), group), None),
    )
    for engine, step in product(engines, range(7)):
        epoch, done = divmod(step, 3)
        order = epoch_order(11, seed=2**31 - 1, epoch=epoch, shuffle=True)[4 * done :]
        found = np.concatenate([batch.ids[batch.weights > 0] for batch in engine.batches(step)])
        np.testing.assert_array_equal(found, order)
