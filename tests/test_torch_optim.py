"""The PyTorch reference's optimizers and schedules against numbers computed by hand."""

import copy
from typing import Any

import facts
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tiny import complete_settings
from torch import nn

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from torch_ref.alexnet import build
from torch_ref.optim import (
    MomentumInside,
    at_rate,
    build_optimizer,
    learning_rate_of,
    parameter_groups,
    set_learning_rate,
)
from torch_ref.resolved_settings import resolve
from torch_ref.schedules import (
    Constant,
    Cosine,
    EveryEpochs,
    EverySteps,
    Milestones,
    Plateau,
    learning_rate,
    plateau,
)


class One(nn.Module):
    """A single weight."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(self.layer.weight, start)


def run(settings: CompleteSettings, gradients: list[float], rates: list[float] | None = None, **options) -> list[float]:
    """The weight after each step, starting from 1."""
    network = One()
    optimizer = build_optimizer(network, settings)
    for group in optimizer.param_groups:
        group.update(options)
    weight = network.layer.weight
    weights = []
    for gradient, rate in zip(gradients, rates or [settings.learning_rate] * len(gradients), strict=True):
        set_learning_rate(optimizer, rate)
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        weights.append(weight.item())
    return weights


def test_pytorchs_order_of_decay_and_momentum() -> None:
    """https://github.com/pytorch/pytorch/pull/13801: decay joins the gradient, before the momentum."""
    settings = complete_settings(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    assert_allclose(run(settings, [1, 1, 1]), [0.89, 0.6821, 0.388169], rtol=1e-14)
    assert_allclose(run(settings, [1, 1, 1], nesterov=True), [0.791, 0.496871, 0.1298334], atol=6e-8)
    inside = complete_settings(optimizer="paper", learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    assert_allclose(run(inside, [1, 1, 1]), [0.89, 0.6821, 0.388169], rtol=1e-14)


def test_rate_inside_the_velocity_or_outside() -> None:
    """https://github.com/pytorch/pytorch/issues/1099: they part when the rate changes."""
    rates = [0.1, 0.1, 0.01]
    outside = run(complete_settings(optimizer="sgd", learning_rate=0.1, momentum=0.9), [1, 1, 1], rates)
    inside = run(complete_settings(optimizer="paper", learning_rate=0.1, momentum=0.9), [1, 1, 1], rates)
    assert_allclose(outside, [0.9, 0.71, 0.6829], rtol=1e-14)
    assert_allclose(inside, [0.9, 0.71, 0.529], rtol=1e-14)


def test_adams_epsilon() -> None:
    """https://github.com/google-deepmind/optax/issues/571: added after the bias correction and the root."""
    settings = complete_settings(optimizer="adam", learning_rate=0.1)
    assert_allclose(run(settings, [1e-8] * 3), [0.95, 0.9, 0.85], rtol=1e-12)


def test_the_papers_update(rng: np.random.Generator) -> None:
    """v <- 0.9 v - 0.0005 e w - e g; w <- w + v (section 5), in float64, across a drop and with faster biases."""
    weight, bias = rng.normal(size=(3, 2)), rng.normal(size=3)
    layer = nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "lr_multiplier": 2.0, "weight_decay": 0.0}]
    optimizer = MomentumInside(groups, lr=0.01, momentum=0.9, weight_decay=0.0005)
    velocity, bias_velocity = np.zeros_like(weight), np.zeros_like(bias)
    for step in range(6):
        rate = 0.01 if step < 3 else 0.001
        set_learning_rate(optimizer, rate)
        gradient, bias_gradient = rng.normal(size=(3, 2)), rng.normal(size=3)
        layer.weight.grad, layer.bias.grad = torch.tensor(gradient), torch.tensor(bias_gradient)
        optimizer.step()
        velocity = 0.9 * velocity - 0.0005 * rate * weight - rate * gradient
        bias_velocity = 0.9 * bias_velocity - 2 * rate * bias_gradient
        weight, bias = weight + velocity, bias + bias_velocity
        assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-14, atol=1e-15)
        assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-14, atol=1e-15)
        assert_allclose(optimizer.state[layer.weight]["velocity"].numpy(), velocity, rtol=1e-12, atol=1e-16)
        assert_allclose(optimizer.state[layer.bias]["velocity"].numpy(), bias_velocity, rtol=1e-12, atol=1e-16)


def test_momentum_inside_resumes_and_takes_closures() -> None:
    network = One()
    optimizer = MomentumInside(network.parameters(), lr=0.1, weight_decay=0.0)
    weight = network.layer.weight

    def closure() -> float:
        weight.grad = torch.ones_like(weight)
        return 3.0

    assert optimizer.step(closure) == 3.0
    again = One(weight.item())
    resumed = MomentumInside(again.parameters(), lr=5.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.layer.weight.grad = torch.ones_like(weight)
    resumed.step()
    optimizer.step(closure)
    assert_allclose(weight.item(), 0.71, rtol=1e-14)
    assert torch.equal(again.layer.weight, weight)


def test_the_papers_settings_are_the_default() -> None:
    """Section 5: momentum 0.9, weight decay 0.0005, a first rate of 0.01 for all layers."""
    (group,) = MomentumInside(One().parameters()).param_groups
    del group["params"]
    assert group == {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005, "lr_multiplier": 1.0}


def test_weights_without_a_gradient_stay() -> None:
    """And those after them don't."""
    still, moved = One(), One()
    moved.layer.weight.grad = torch.ones_like(moved.layer.weight)
    MomentumInside([still.layer.weight, moved.layer.weight], lr=0.1, weight_decay=0.0).step()
    assert still.layer.weight.item() == 1.0
    assert_allclose(moved.layer.weight.item(), 0.9, rtol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, r"lr=-0\.1.*0 or more"),
        ({"momentum": 1.0}, r"momentum=1\.0.*\[0, 1\)"),
        ({"momentum": 1.5}, r"momentum=1\.5.*\[0, 1\)"),
        ({"weight_decay": float("nan")}, "weight_decay=nan.*0 or more"),
        ({"lr_multiplier": -2.0}, r"lr_multiplier=-2\.0.*0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MomentumInside(One().parameters(), **settings)
    # Only a momentum has an upper end.
    MomentumInside(One().parameters(), lr=2.0, momentum=0.0, weight_decay=2.0, lr_multiplier=2.0)


@pytest.mark.parametrize(
    ("groups", "inside", "outside"),
    [
        # The rate of a group without a multiplier, or with one of 1, is not divided, which would round it.
        (
            [{"lr": 7.0, "lr_multiplier": 0.5}, {"lr": 9.0, "lr_multiplier": 2.0}, {"lr": 0.3, "lr_multiplier": 1.0}],
            0.3,
            0.3,
        ),
        ([{"lr": 7.0, "lr_multiplier": 0.5}, {"lr": 0.3}], 0.3, 0.3),
        # Where there is none, the first one's; PyTorch's optimizers carry the product.
        (
            [{"lr": 7.0, "lr_multiplier": 0.5}, {"lr": 9.0, "lr_multiplier": 4.0}, {"lr": 3.0, "lr_multiplier": 2.0}],
            7.0,
            14.0,
        ),
    ],
)
def test_the_rate_of_an_optimizer_is_that_without_multipliers(groups: list, inside: float, outside: float) -> None:
    def with_weights() -> list:
        return [{"params": One().parameters(), **group} for group in groups]

    assert learning_rate_of(MomentumInside(with_weights())) == inside
    assert learning_rate_of(torch.optim.SGD(with_weights(), lr=1.0)) == outside


@pytest.mark.parametrize("rate", [0.125, 0.5, 2.0])
def test_a_rate_for_one_step_leaves_every_group_with_its_own(rate: float) -> None:
    """The second group's own is not quite the product: so a counter may have left it."""
    groups = [{"params": One().parameters(), **more} for more in ({}, {"lr_multiplier": 3.0}, {})]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    own = (0.5, 1.5 + 1e-9, 0.5)
    for group, value in zip(optimizer.param_groups, own, strict=True):
        group["lr"] = value
    with at_rate(optimizer, rate):
        found = tuple(group["lr"] for group in optimizer.param_groups)
    assert found == (own if rate == 0.5 else (rate, 3 * rate, rate))
    assert tuple(group["lr"] for group in optimizer.param_groups) == own


def rates_and_decays(model: str, settings: CompleteSettings, **build_settings) -> dict[str, tuple[float, float]]:
    with torch.device("meta"):
        network = build(model, **build_settings)
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = {
        names[parameter]: (group["lr_multiplier"], group["weight_decay"])
        for group in parameter_groups(network, settings)
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar_rates_and_decays_by_layer(model: str) -> None:
    expected = facts.CIFAR_RECIPES[model]
    found = rates_and_decays(model, resolve(TrainSettings(recipe="cifar", model=model)))
    for layer, decay in expected.weight_decay.items():
        assert found.pop(f"{layer}.weight") == (1.0, decay)
        # cuda-convnet decays weights only.
        assert found.pop(f"{layer}.bias") == (expected.bias_rate, 0.0)
    assert not found


@pytest.mark.parametrize("name", facts.RECIPES)
def test_rates_and_decays_of_all_layers_alike(name: str) -> None:
    expected = facts.RECIPES[name]
    settings = resolve(TrainSettings(recipe=name, model="two_column"))
    for key, (multiplier, decay) in rates_and_decays("two_column", settings).items():
        is_bias = key.endswith("bias")
        assert multiplier == (expected.bias_rate if is_bias else 1.0)
        assert decay == (expected.weight_decay if expected.biases_decay or not is_bias else 0.0)


@pytest.mark.parametrize("new", [1.0, 3.0])
@pytest.mark.parametrize("optimizer", ["paper", "sgd", "adam"])
def test_multipliers_hold_in_every_optimizer(optimizer: str, new: float) -> None:
    """A bias at twice the rate moves twice as far, also after a drop, through a wrapper's names as well.

    The layer is the last one, so that where it is new it has the rate of new layers.
    """
    network = nn.Module()
    network.module = nn.Module()
    network.module.fc = nn.Linear(1, 1).double()
    words = {"init_from": "anything", "new_layer_learning_rate_factor": new} if new > 1 else {}
    settings = complete_settings(optimizer=optimizer, learning_rate=0.1, bias_learning_rate_factor=2.0, **words)
    built = build_optimizer(network, settings)
    for rate in (None, 0.01):
        if rate is not None:
            set_learning_rate(built, rate)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        built.step()
        weight, bias = ((old - new).item() for old, new in zip(before, network.parameters(), strict=True))
        assert_allclose(weight, new * (rate or 0.1), rtol=1e-6)
        assert_allclose(bias, 2 * new * (rate or 0.1), rtol=1e-6)


def test_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match=r"lion.*adam, sgd, paper"):
        build_optimizer(One(), complete_settings(optimizer="lion", learning_rate=0.1))


def test_milestones_begin_with_their_epoch() -> None:
    """https://github.com/huggingface/pytorch-image-models/pull/2753: not one epoch before."""
    schedule = Milestones((30, 60))
    rates = [learning_rate(schedule, 1.0, epoch=epoch, step=0) for epoch in (0, 29, 30, 59, 60, 89)]
    assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-15)


def test_epochs_and_steps_are_not_mixed_up() -> None:
    """https://github.com/goodfire-ai/spd/issues/642: at three steps an epoch, epoch 30 begins with step 90."""
    by_epochs = [learning_rate(EveryEpochs(30), 1.0, epoch=step // 3, step=step) for step in (0, 30, 89, 90, 180)]
    assert_allclose(by_epochs, [1, 1, 1, 0.1, 0.01], rtol=1e-15)
    by_steps = [learning_rate(EverySteps(30), 1.0, epoch=step // 3, step=step) for step in (0, 29, 30, 59, 60)]
    assert_allclose(by_steps, [1, 1, 0.1, 0.1, 0.01], rtol=1e-15)
    assert learning_rate(Constant(), 0.3, epoch=80, step=10_000) == 0.3
    by_place: Any = learning_rate
    with pytest.raises(TypeError, match="positional"):
        by_place(EverySteps(30), 1.0, 1, 30)


def test_a_cosine_ends_at_nothing_and_stays_there() -> None:
    """At and beyond the step after the last; by hand, 60 degrees, a third of the way, leave three quarters."""
    rates = [learning_rate(Cosine(2, 14), 0.5, epoch=0, step=step) for step in (0, 2, 6, 8, 14, 17, 20, 100)]
    assert_allclose(rates, [0.5, 0.5, 0.375, 0.25, 0, 0, 0, 0], rtol=1e-15, atol=1e-16)


def test_schedules_are_pytorchs_closed_forms() -> None:
    network = One()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7, 20], gamma=0.1)
    for epoch in range(30):
        ours = learning_rate(Milestones((7, 20)), 0.01, epoch=epoch, step=0)
        assert_allclose(ours, theirs.get_last_lr()[0], rtol=1e-15)
        optimizer.step()
        theirs.step()


def test_plateau_counts_as_pytorch_does() -> None:
    """By hand: dropped after more than `patience` bad epochs in a row, none counted during the cooldown."""
    optimizer = MomentumInside(One().parameters(), lr=1.0)
    scheduler = plateau(Plateau(patience=1, cooldown=2, threshold=0.01), optimizer)
    losses = [1.0, 0.995, 0.98, 0.975, 0.972, 0.98, 0.98, 0.98, 0.98, 0.98]
    #         best  bad   best  bad    drop   cool  cool  bad   drop  cool
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert_allclose(rates, [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-14)


def test_plateau_has_no_closed_form() -> None:
    with pytest.raises(TypeError, match="plateau"):
        learning_rate(Plateau(), 0.1, epoch=0, step=0)
