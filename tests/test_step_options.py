"""What a step does besides, in both frameworks: smoothed labels, clipped gradients, batches in parts, averages."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import PartitionSpec
from tiny import CLASSES, SIDE, TABLE, TorchNetwork, complete_settings, torch_setup
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import Batch
from alexnet_io.errors import UserError
from alexnet_io.run import averaging, batch_parts
from jax_alexnet import augment, optim, steps
from jax_alexnet import run_setup as jax_setup
from jax_alexnet.devices import data_mesh
from jax_alexnet.model import AlexNet
from jax_alexnet.ops.cross_entropy import smoothed_cross_entropy
from jax_alexnet.parallel import choose_layout
from jax_alexnet.recipes import resolve
from torch_ref import checkpoint
from torch_ref import resolved_settings as torch_recipes
from torch_ref import run_setup as torch_setup_module
from torch_ref.optim import clip_gradients
from torch_ref.processes import Processes
from torch_ref.steps import StepSums, _losses, train_step

BATCH, REAL, RATE = 16, 13, 0.05
RNG = np.random.default_rng(2012)
IMAGES, LABELS = RNG.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8), RNG.integers(0, CLASSES, BATCH, np.int32)
WEIGHTS = (np.arange(BATCH) < REAL).astype(np.float32)
SETTINGS = complete_settings(
    image_size=SIDE,
    stored_size=SIDE,
    normalize="unit",
    batch_size=BATCH,
    precision="float64",
    optimizer="sgd",
    momentum=0.9,
    weight_decay=0.0,
    learning_rate=RATE,
)


# --- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_smoothed_losses_are_those_written_out(share: float) -> None:
    """Of the label, 1 - share is left on the class, and share / classes is on each, the class among them."""
    logits, labels = 3 * RNG.normal(size=(6, 4)), np.array([0, 1, 2, 3, -1, 4])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    own = logs[np.arange(6), labels % 4]
    expected = np.where((labels < 0) | (labels > 3), np.nan, -(1 - share) * own - share * logs.mean(axis=1))
    ours = smoothed_cross_entropy(jnp.asarray(logits), labels, share)
    theirs = _losses(torch.tensor(logits), torch.tensor(labels), share)
    np.testing.assert_allclose(ours, expected, rtol=1e-14)
    np.testing.assert_allclose(theirs, expected, rtol=1e-14)


# --- gradients --------------------------------------------------------------------------------------------


def clipped_by_both(values: list[float], limit: float) -> tuple[np.ndarray, np.ndarray]:
    """A gradient of two arrays, clipped on either side, in one row."""
    halves = np.array_split(np.array(values), 2)
    rule = optim.clip_by_global_norm(limit)
    ours: Any = rule.update([jnp.asarray(half) for half in halves], rule.init(halves))[0]
    network = torch.nn.ParameterList([torch.zeros(len(half), dtype=torch.float64) for half in halves])
    for parameter, half in zip(network, halves, strict=True):
        parameter.grad = torch.tensor(half)
    clip_gradients(network, limit)
    return np.concatenate(ours), np.concatenate([parameter.grad.numpy() for parameter in network])


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [
        ([3.0, 4.0], 1.0, [0.6, 0.8]),
        ([3.0, 4.0], 5.0, [3.0, 4.0]),
        ([3.0, 4.0], 5.5, [3.0, 4.0]),
        ([2.0, -3.0, 6.0], 0.07, [0.02, -0.03, 0.06]),
        ([0.0, 0.0], 1.0, [0.0, 0.0]),
    ],
)
def test_gradients_are_clipped_to_the_limit_itself(values: list[float], limit: float, expected: list[float]) -> None:
    """PyTorch's own clipping, with its 1e-6 in the denominator, would leave 0.9999998 of 1."""
    for found in clipped_by_both(values, limit):
        np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.multi_device
@pytest.mark.parametrize(("limit", "share"), [(1.0, 0.2), (5.0, 1.0), (5.5, 1.0)])
def test_where_devices_have_parts_of_a_gradient_its_norm_is_that_of_all(limit: float, share: float) -> None:
    """Of (3, 4), a part on each of two devices, beside one that both have, of no length."""
    rule, mesh = optim.clip_by_global_norm(limit), data_mesh(jax.devices()[:2])
    specs = {"divided": PartitionSpec("data"), "whole": PartitionSpec()}

    def clipped(updates: Any) -> Any:
        return rule.update(updates, rule.init(updates))[0]

    divided = jax.jit(jax.shard_map(clipped, mesh=mesh, in_specs=(specs,), out_specs=specs))
    found = divided({"divided": jnp.array([3.0, 4.0]), "whole": jnp.zeros(3)})
    np.testing.assert_allclose(found["divided"], [3 * share, 4 * share], rtol=1e-15)
    assert not found["whole"].any()


def test_a_gradient_that_is_no_number_stays_none() -> None:
    for found in clipped_by_both([np.nan, 1.0], 1.0):
        assert np.isnan(found).all()


def test_frozen_layers_have_no_part_in_the_norm() -> None:
    """Of JAX's gradients, which has those of all layers; PyTorch makes none of frozen ones."""
    settings = dataclasses.replace(SETTINGS, freeze="fc1", clip_norm=1.0, momentum=0.0)
    params = {"fc1": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}, "fc2": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}}
    rule = optim.make_optimizer(settings, TABLE, params)
    grads = jax.tree.map(lambda leaf: 100 * leaf, params)
    grads["fc2"] = {"kernel": jnp.full(1, 3.0), "bias": jnp.full(1, 4.0)}
    updates: Any = rule.update(grads, rule.init(params), params, learning_rate=jnp.float64(1.0))[0]
    np.testing.assert_allclose([updates["fc2"]["kernel"][0], updates["fc2"]["bias"][0]], [-0.6, -0.8], rtol=1e-15)
    assert not any(leaf.any() for leaf in updates["fc1"].values())


# --- parts and devices ------------------------------------------------------------------------------------


def fresh(dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(1)
    model = AlexNet(TABLE, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3), dtype))["params"]
    return model, jax.tree.map(lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype(dtype), shapes)


@cache
def after_three_steps(scheme: str, devices: int, **words: Any) -> Any:
    """JAX's state after three steps with dropout and a batch whose last rows only fill it up, and the last sums."""
    settings, (model, params) = dataclasses.replace(SETTINGS, **words), fresh()
    layout = choose_layout(scheme, TABLE, jax.devices()[:devices])
    optimizer, options = optim.make_optimizer(settings, TABLE, params), steps.StepOptions.of(settings)
    step = steps.make_train_step(model, optimizer, augment.Augmentation.of(settings), layout, options)
    state = layout.place(steps.fresh_state(jax.tree.map(jnp.asarray, params), optimizer, options))
    batch = steps.split(steps.DeviceBatch(IMAGES, LABELS, WEIGHTS), layout.mesh)
    for _ in range(3):
        state, sums = step(state, batch, jnp.float64(RATE), jax.random.key(3), {})
    return jax.tree.map(np.asarray, state), jax.tree.map(float, sums)


def apart(one: Any, other: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)))


@pytest.mark.multi_device
@pytest.mark.parametrize(("scheme", "devices", "parts"), [("data", 1, 4), ("data", 2, 4), ("zero", 2, 2)])
def test_a_batch_in_parts_makes_the_same_step(scheme: str, devices: int, parts: int) -> None:
    """With dropout: masks follow an example's place in the whole batch. A part may only fill it up."""
    whole, parted = after_three_steps("data", 1), after_three_steps(scheme, devices, accumulate=parts)
    assert apart(whole[0].params, fresh()[1]) > 1e-3
    assert apart(whole, parted) < 1e-13


@pytest.mark.multi_device
@pytest.mark.parametrize(("scheme", "devices"), [("data", 2), ("zero", 2), ("hybrid", 2)])
def test_every_scheme_clips_and_averages_alike(scheme: str, devices: int) -> None:
    """The norm is of the whole gradient where a device has a part of it."""
    words = {"clip_norm": 0.3, "ema": 0.7, "label_smoothing": 0.1}
    alone = after_three_steps("data", 1, **words)
    assert apart(alone[0].params, after_three_steps("data", 1)[0].params) > 1e-3
    assert apart(alone[0].params, alone[0].average) > 1e-3
    assert apart(alone, after_three_steps(scheme, devices, **words)) < 1e-13


@pytest.mark.parametrize("parts", [2, 4])
def test_the_reference_makes_the_same_step_of_a_batch_in_parts(parts: int) -> None:
    def weights_after(accumulate: int) -> torch.Tensor:
        network = TorchNetwork().double()
        settings = dataclasses.replace(SETTINGS, accumulate=accumulate)
        setup = torch_setup(network, settings, examples=REAL)
        for _ in range(2):
            done = train_step(setup, Batch(IMAGES, LABELS, WEIGHTS, np.arange(BATCH)), 0, RATE)
            assert StepSums.of(done).sums.examples == REAL
        return torch.cat([value.detach().flatten() for value in network.parameters()])

    torch.testing.assert_close(weights_after(parts), weights_after(1), rtol=1e-12, atol=1e-15)


def test_parts_that_do_not_divide_the_batch_are_refused() -> None:
    settings = dataclasses.replace(SETTINGS, accumulate=3)
    with pytest.raises(UserError, match=r"--accumulate 3: a batch of 16 images can't be divided .* 1, 2, 4, 8, 16, or"):
        batch_parts.refuse_uneven(settings, 1)
    with pytest.raises(UserError, match=r"a batch of 16 images, 8 on each of 2 devices, can't .* 1, 2, 4, 8, or"):
        batch_parts.refuse_uneven(settings, 2)


@pytest.mark.multi_device
def test_what_can_not_go_together_is_refused_before_the_run() -> None:
    words = {"model": "cifar_18pct", "data": "synthetic:classes=2,train=8,test=2", "batch_size": 8}
    more = {"model": "two_column", "recipe": "blog", "image_size": 67, "parallel": "hybrid", "devices": "2"}
    hybrid = resolve(TrainSettings(**{**words, **more}, accumulate=2))
    with pytest.raises(UserError, match="--accumulate 2 can't go with --parallel hybrid"):
        jax_setup.prepare(hybrid)
    settings = complete_settings(**words, accumulate=3, devices="1")
    with pytest.raises(UserError, match="--accumulate 3"):
        jax_setup.prepare(settings)
    with pytest.raises(UserError, match="--accumulate 3"):
        torch_setup_module.prepare(torch_recipes.resolve(settings), Processes(0, 1, torch.device("cpu")))


def test_what_a_step_does_besides_is_nothing_unless_asked_for_and_stays_as_it_was_compiled() -> None:
    assert steps.StepOptions() == steps.StepOptions.of(SETTINGS) == steps.StepOptions(0.0, 1, None)
    asked = steps.StepOptions.of(dataclasses.replace(SETTINGS, label_smoothing=0.1, accumulate=4, ema=0.5))
    assert asked == steps.StepOptions(label_smoothing=0.1, parts=4, ema=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.parts = 2  # pyright: ignore[reportAttributeAccessIssue]


# --- averages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.9, 0.25])
def test_averages_begin_with_the_first_weights_and_follow_each_step(decay: float) -> None:
    weights = [RNG.normal(size=3) for _ in range(4)]
    expected = weights[0]
    model = torch.nn.ParameterList([torch.tensor(weights[0])])
    theirs, ours = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)), jnp.asarray(weights[0])
    theirs.update_parameters(model)
    for new in weights[1:]:
        expected = decay * expected + (1 - decay) * new
        ours = steps.moved_average(jnp.asarray(new), ours, decay)
        model[0].data.copy_(torch.tensor(new))
        theirs.update_parameters(model)
        np.testing.assert_allclose(ours, expected, rtol=1e-14)
        (average,) = theirs.module.parameters()
        np.testing.assert_allclose(average.detach(), expected, rtol=1e-14)


def test_the_average_of_a_weight_that_stays_is_that_weight() -> None:
    """0.9 w + 0.1 w, rounded, is not w for about every fourth w."""
    stays = RNG.normal(size=1000).astype(np.float32)
    average: Any = jnp.asarray(stays)
    plain: Any = optax.incremental_update(average, average, 1 - 0.9)
    assert not np.array_equal(plain, stays)
    for _ in range(20):
        average = steps.moved_average(jnp.asarray(stays), average, 0.9)
    assert np.array_equal(average, stays)


def test_of_a_checkpoint_the_average_is_evaluated() -> None:
    own, average = {"fc.weight": torch.zeros(1)}, {"module.fc.weight": torch.ones(1), "n_averaged": torch.tensor(3)}
    assert checkpoint.evaluated_weights({"state_dict": own, "average": average}) == {"fc.weight": torch.ones(1)}
    assert checkpoint.evaluated_weights({"state_dict": own, "average": None}) is own
    assert checkpoint.evaluated_weights({"state_dict": own}) is own  # of an earlier version


def test_a_run_says_that_it_evaluates_averages() -> None:
    assert averaging.notes(SETTINGS) == [] and averaging.described(SETTINGS) == {}
    settings = dataclasses.replace(SETTINGS, ema=0.999)
    assert "average (--ema 0.999), not of the weights themselves" in averaging.notes(settings)[0]
    assert averaging.described(settings) == {"evaluated_weights": {"average": "exponential", "decay": 0.999}}
