"""The reference's training and evaluation step against the same written out for a linear network."""

import dataclasses
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import CLASSES, SIDE, OneOfSeveral, TorchNetwork, complete_settings, torch_setup
from torch import nn

from alexnet_io.data.batches import Batch
from alexnet_io.data.sources.dataset import Split
from alexnet_io.run.engine import Sums
from torch_ref import steps
from torch_ref.optim import MomentumInside
from torch_ref.run_setup import Setup
from torch_ref.schedules import Plateau, Schedule
from torch_ref.steps import StepSums, Votes, _hits, evaluate, train_step

BATCH, EXAMPLES = 8, 21  # three steps an epoch, five examples in the last
SETTINGS = complete_settings(image_size=SIDE, normalize="unit", batch_size=BATCH, precision="float64")
RNG = np.random.default_rng(2012)
IMAGES, LABELS = RNG.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8), RNG.integers(0, CLASSES, BATCH, np.int32)
WEIGHT = RNG.normal(size=(CLASSES, 3 * SIDE**2))


def setup_of(rank: int = 0, count: int = 1, schedule: Schedule | None = None, **words: Any) -> Setup:
    linear = nn.Linear(3 * SIDE**2, CLASSES, bias=False).double()
    linear.weight.data.copy_(torch.tensor(WEIGHT))
    network = nn.Sequential(nn.Flatten(), linear)
    settings = dataclasses.replace(SETTINGS, **words)
    return torch_setup(network, settings, examples=EXAMPLES, rank=rank, count=count, schedule=schedule)


def weight_of(setup: Setup) -> NDArray:
    return setup.network.get_parameter("1.weight").detach().numpy()


def part(rank: int, count: int, real: int) -> Batch:
    """A process's share of a batch of which `real` rows are."""
    own = slice(rank * BATCH // count, (rank + 1) * BATCH // count)
    weights = (np.arange(BATCH) < real).astype(np.float32)
    return Batch(IMAGES[own], LABELS[own], weights[own], np.arange(BATCH)[own])


def by_hand(weight: NDArray, real: int) -> tuple[NDArray, float, NDArray]:
    """The gradient of the mean loss over the first rows, their summed loss, and their labels' ranks."""
    x = IMAGES[:real].transpose(0, 3, 1, 2).reshape(real, -1) / 255
    logits, labels = x @ weight.T, LABELS[:real]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = np.take_along_axis(logits, labels[:, None], 1)
    error = shares - np.eye(CLASSES)[labels]
    return error.T @ x / real, float(-np.log(shares[np.arange(real), labels]).sum()), (logits > own).sum(1)


@pytest.mark.parametrize(("step", "real"), [(0, 8), (2, 5), (4, 8), (5, 5)])
def test_one_step_descends_the_mean_loss_over_real_examples(step, real):
    setup = setup_of()
    sums = StepSums.of(train_step(setup, part(0, 1, real), step, 0.5)).sums
    gradient, loss, ranks = by_hand(WEIGHT, real)
    np.testing.assert_allclose(weight_of(setup), WEIGHT - 0.5 * gradient, rtol=1e-12)
    assert dataclasses.astuple(sums) == pytest.approx((loss, (ranks < 1).sum(), (ranks < 5).sum(), real), rel=1e-12)


def test_gradients_of_two_steps_are_not_added():
    setup = setup_of()
    for step in (0, 1):
        train_step(setup, part(0, 1, BATCH), step, 0.5)
    first = WEIGHT - 0.5 * by_hand(WEIGHT, BATCH)[0]
    np.testing.assert_allclose(weight_of(setup), first - 0.5 * by_hand(first, BATCH)[0], rtol=1e-11)


@pytest.mark.parametrize("real", [8, 5, 3])
def test_the_mean_of_two_processes_gradients_is_that_of_the_whole_batch(real):
    """Also where the second has rows that only fill it up: DDP averages, whatever each has."""
    step = 0 if real == 8 else 2
    gradients, sums, votes = [], Sums(), []
    for rank in range(2):
        setup = setup_of(rank, 2)
        setup.data = SimpleNamespace(train=range(2 * BATCH + real))  # type: ignore[assignment]
        wants = Votes.of(signal.SIGTERM if rank else 0, save=rank == 0)
        done = StepSums.of(train_step(setup, part(rank, 2, real), step, 0.5, wants))
        sums, votes = sums + done.sums, [*votes, done.votes]
        gradients.append(setup.network.get_parameter("1.weight").grad)
    gradient, loss, ranks = by_hand(WEIGHT, real)
    np.testing.assert_allclose(sum(gradients) / 2, gradient, rtol=1e-11, atol=1e-15)
    assert dataclasses.astuple(sums) == pytest.approx((loss, (ranks < 1).sum(), (ranks < 5).sum(), real), rel=1e-12)
    assert votes == [(0, 0, 1), (0, 1, 0)]


# Learning rates


def test_the_rate_that_comes_with_a_step_is_its_rate():
    setup = setup_of()
    for step, rate in enumerate((0.5, 0.05, 0.0)):
        before, real = weight_of(setup).copy(), 5 if step == 2 else BATCH
        train_step(setup, part(0, 1, real), step, rate)
        np.testing.assert_allclose(weight_of(setup), before - rate * by_hand(before, real)[0], rtol=1e-11)


def test_a_plateau_keeps_the_rate_that_it_has_set():
    setup = setup_of(schedule=Plateau(factor=0.1, patience=0))
    assert setup.plateau is not None
    for error, rate in ((0.5, 1.0), (0.5, 0.1), (0.4, 0.1), (0.6, 0.01)):
        setup.plateau.step(error)
        train_step(setup, part(0, 1, BATCH), 0, 0.5)
        assert setup.optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-14, abs=0)


def test_a_signal_and_a_wish_to_save_are_told_apart():
    assert [Votes.of(number, False).stop for number in (0, signal.SIGINT, signal.SIGTERM)] == [0, 2, 15]
    assert Votes(1.0, 1.0).stop == signal.SIGTERM  # of two signals, the one that isn't a user's Ctrl-C
    assert Votes.of(0, True) == (0, 0, 1)


# Hits


@pytest.mark.parametrize("rank", range(7))
def test_hits_by_how_many_classes_are_likelier(rank):
    """The first is right, the fifth is among five, the sixth isn't."""
    logits = torch.tensor([[3.0, 9.0, -1.0, 4.0, 7.0, 0.0, 5.0]])
    label = torch.argsort(-logits[0])[rank]
    assert [hit.tolist() for hit in _hits(logits, label[None])] == [[rank < 1], [rank < 5]]


def test_among_equal_logits_the_lower_class_comes_first():
    """As argmax and evaluation have it: a network that says nothing isn't right about everything."""
    top1, top5 = _hits(torch.zeros(7, 7), torch.arange(7))
    assert (top1.tolist(), top5.tolist()) == ([1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0])
    assert top1.dtype == top5.dtype == torch.float32
    logits = torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]]).repeat(5, 1)
    top1, top5 = _hits(logits, torch.tensor([0, 2, 5, 6, 1]))
    assert (top1.tolist(), top5.tolist()) == ([1, 0, 0, 0, 0], [1, 1, 1, 0, 0])


# Evaluation


def split_of(count: int) -> Split:
    images = RNG.integers(0, 256, (count, SIDE + 2, SIDE + 1, 3), np.uint8)
    labels = RNG.integers(0, CLASSES, count, np.int32)
    names = [f"image-{place}" for place in range(count)]
    return Split("test", labels, names, images.shape[1:], lambda places: images[places], "test")


@pytest.mark.parametrize(("examples", "processes"), [(1, 1), (128, 1), (129, 1), (300, 3)])
def test_every_example_is_evaluated_once_by_its_central_crop(examples, processes, monkeypatch):
    monkeypatch.setattr(OneOfSeveral, "gather", lambda self, value: [value])
    read, sizes = steps.batches, []

    def watched(*some: Any, **more: Any) -> Any:
        sizes.append(more["batch_size"])
        return read(*some, **more)

    monkeypatch.setattr(steps, "batches", watched)
    split = split_of(examples)
    logits = split.read(np.arange(examples))[:, 1:7, 0:6].transpose(0, 3, 1, 2).reshape(examples, -1) / 255 @ WEIGHT.T
    own = np.take_along_axis(logits, split.labels[:, None], 1)
    losses = np.log(np.exp(logits).sum(1)) - own[:, 0]
    counts = np.zeros(4)
    for rank in range(processes):
        setup = setup_of(rank, processes)
        setup.data = SimpleNamespace(class_names=list("abcdefg"))  # type: ignore[assignment]
        report = evaluate(setup, split)
        counts += report.examples * np.array([1, report.loss, report.top1, report.top5])
    assert sizes == [processes * -(-128 // processes)] * processes  # 128, or a few more that all can share
    ranks = (logits > own).sum(1)
    np.testing.assert_allclose(counts, [examples, losses.sum(), (ranks < 1).sum(), (ranks < 5).sum()], rtol=1e-12)


def test_evaluation_drops_nothing_and_training_goes_on_dropping():
    network = TorchNetwork().double()
    setup = torch_setup(network, SETTINGS, examples=EXAMPLES)
    setup.data = SimpleNamespace(train=range(EXAMPLES), class_names=list("abcdefg"))  # type: ignore[assignment]
    first = evaluate(setup, split := split_of(5))
    assert not network.training
    assert network.drop1.mask is None
    assert evaluate(setup, split) == first
    train_step(setup, part(0, 1, BATCH), 0, 0.5)
    assert network.training
    assert network.drop1.mask is not None


def test_bfloat16_rounds_the_products_but_not_the_loss():
    """Autocast: the linear layer in bfloat16, the loss of its rounded logits in float32."""
    setup = setup_of(precision="bfloat16")
    for group in setup.optimizer.param_groups:
        group["params"] = list(setup.network.float().parameters())
    setup.statistics = {"zero": torch.zeros(())}
    x = torch.tensor(IMAGES.transpose(0, 3, 1, 2).reshape(BATCH, -1) / 255).bfloat16()
    logits = (x.float() @ torch.tensor(WEIGHT).bfloat16().float().T).bfloat16().double()
    losses = torch.logsumexp(logits, 1) - logits[torch.arange(BATCH), torch.tensor(LABELS).long()]
    loss = StepSums.of(train_step(setup, part(0, 1, BATCH), 0, 0.5)).sums.loss
    assert loss == pytest.approx(losses.sum().item(), rel=1e-6)
    assert loss != pytest.approx(by_hand(WEIGHT, BATCH)[1], rel=1e-5)


def test_the_optimizers_own_momentum_is_used():
    setup = setup_of()
    setup.optimizer = MomentumInside(setup.network.parameters(), lr=0.5, momentum=0.5, weight_decay=0.0)
    for step in (0, 1):
        train_step(setup, part(0, 1, BATCH), step, 0.5)
    velocity = -0.5 * by_hand(WEIGHT, BATCH)[0]
    second = 0.5 * velocity - 0.5 * by_hand(WEIGHT + velocity, BATCH)[0]
    np.testing.assert_allclose(weight_of(setup), WEIGHT + velocity + second, rtol=1e-11)
