"""Learning rates against PyTorch's schedulers and the figures of public reports."""

import numpy as np
import pytest
import torch

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet.recipes import resolve
from jax_alexnet.schedules import Plateau, learning_rate


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_counts_as_pytorch_does(patience, cooldown, rng):
    """On 200 noisy metrics with long flat stretches."""
    metrics = np.round(1 + np.exp(-np.arange(200) / 30) + 0.02 * rng.normal(size=200), 2)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.01)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=patience, cooldown=cooldown)
    ours = Plateau(0.01, 0.1, patience, cooldown)
    drops = 0
    for metric in metrics:
        before = ours.learning_rate
        theirs.step(float(metric))
        assert ours.update(float(metric)) == optimizer.param_groups[0]["lr"]
        drops += ours.learning_rate < before
    assert drops >= 2


def test_plateau_goes_on_from_its_state(rng):
    metrics = rng.normal(size=60)
    straight, broken = (Plateau(0.01, 0.1, 2, 1) for _ in range(2))
    for metric in metrics[:31]:
        straight.update(metric)
        broken.update(metric)
    fresh = Plateau(0.01, 0.1, 2, 1)
    fresh.restore(broken.state())
    for metric in metrics[31:]:
        assert fresh.update(metric) == straight.update(metric)


def test_milestones_fall_at_their_epoch_not_one_before():
    """https://github.com/huggingface/pytorch-image-models/pull/2753: 29/30 are 1 and 0.1, 59/60 are 0.1 and 0.01."""
    settings = resolve(
        TrainSettings(model="one_weird_trick", schedule="at_epochs", drop_epochs=[30, 60], learning_rate=1.0)
    )
    rates = [learning_rate(settings, epoch, 3 * epoch) for epoch in (29, 30, 59, 60)]
    np.testing.assert_allclose(rates, (1, 0.1, 0.1, 0.01), rtol=1e-15)


def test_steps_and_epochs_are_not_confused():
    """Boundaries in epochs with 3 steps an epoch fall at step 90; Caffe's fall at iteration 100,000."""
    torchvision = resolve(TrainSettings(model="one_weird_trick"))
    rates = [learning_rate(torchvision, step // 3, step) for step in (89, 90)]
    np.testing.assert_allclose(rates, (0.01, 0.001), rtol=1e-15)
    caffe = resolve(TrainSettings(model="caffenet"))
    rates = [learning_rate(caffe, 0, step) for step in (99_999, 100_000, 200_000)]
    np.testing.assert_allclose(rates, (0.01, 0.001, 0.0001), rtol=1e-15)


def test_the_cifar_recipe_drops_after_120_epochs_and_ten_later():
    settings = resolve(TrainSettings(model="cifar_18pct"))
    rates = [learning_rate(settings, epoch, 0) for epoch in (119, 120, 129, 130)]
    np.testing.assert_allclose(rates, (1e-3, 1e-4, 1e-4, 1e-5), rtol=1e-15)
