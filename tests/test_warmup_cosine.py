"""Warmups and cosines in both frameworks: against rates worked by hand, optax's schedule and PyTorch's schedulers."""

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from alexnet_io.command_line.complete_settings import plain
from alexnet_io.command_line.resumed_settings import resumed
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import run_setup as jax_setup
from jax_alexnet import schedules as jax_schedules
from jax_alexnet.engine import JaxEngine
from torch_ref import resolved_settings as torch_recipes
from torch_ref import run_setup as torch_setup
from torch_ref.engine import TorchEngine
from torch_ref.processes import Processes

# Three steps an epoch: 21 images in batches of 8.
WORDS: dict[str, Any] = {
    "model": "cifar_18pct",
    "recipe": "blog",
    "learning_rate": 0.5,
    "batch_size": 8,
    "devices": "1",
    "data": "synthetic:classes=2,train=21,test=2",
}
ENGINES = {
    "jax": lambda settings: JaxEngine(jax_setup.prepare(jax_recipes.resolve(settings)), None),
    "torch": lambda settings: TorchEngine(
        torch_setup.prepare(torch_recipes.resolve(settings), Processes(0, 1, torch.device("cpu"))), None
    ),
}
# By hand: the cosines of 36, 72, 108 and 144 degrees are (1 + r) / 4, (r - 1) / 4, (1 - r) / 4 and -(1 + r) / 4, where
# r is the root of 5.
R = 2.23606797749979
FIFTHS = [1.0, (5 + R) / 8, (3 + R) / 8, (5 - R) / 8, (3 - R) / 8]


def engine(side: str, **words: Any) -> Any:
    return ENGINES[side](TrainSettings(**{**WORDS, **words}))


@pytest.mark.parametrize("side", ENGINES)
@pytest.mark.parametrize(
    ("words", "shares"),
    [
        # Nine steps, four of warmup: a fifth of the rate in the first, all of it in the fifth, and in the last 0.095.
        ({"schedule": "cosine", "epochs": 3, "warmup_steps": 4}, [0.2, 0.4, 0.6, 0.8, *FIFTHS]),
        # --steps end it sooner: nine steps would have another cosine.
        ({"schedule": "cosine", "epochs": 3, "steps": 6, "warmup_steps": 1}, [0.5, *FIFTHS]),
        ({"schedule": "cosine", "epochs": 9, "steps": 5}, FIFTHS),
        # Half an epoch is one step and a half, which are two; 2/3 of one are two as well.
        ({"schedule": "constant", "warmup_epochs": 0.5}, [1 / 3, 2 / 3, 1, 1, 1]),
        ({"schedule": "at_epochs", "drop_epochs": [1], "warmup_epochs": 2 / 3}, [1 / 3, 2 / 3, 1, 0.1, 0.1]),
        ({"schedule": "every_steps", "drop_every": 2, "warmup_steps": 3}, [1 / 4, 2 / 4, 3 / 40, 1 / 10, 1 / 100]),
        # Too short to be a step.
        ({"schedule": "constant", "warmup_epochs": 0.1}, [1.0] * 5),
    ],
    ids=["warmup, cosine", "short", "cosine", "warmup", "milestones", "steps", "none"],
)
def test_rates_are_those_worked_by_hand(words: dict[str, Any], shares: list[float], side: str) -> None:
    asked, rates = engine(side, **words), [0.5 * share for share in shares]
    assert [asked.learning_rate(step) for step in range(len(rates))] == pytest.approx(rates, rel=1e-14, abs=1e-16)
    # In any order, as a resumed run asks.
    steps = range(len(rates) - 1, -1, -1)
    assert [asked.learning_rate(step) for step in steps] == pytest.approx(rates[::-1], rel=1e-14, abs=1e-16)


@pytest.mark.parametrize("side", ENGINES)
def test_a_plateau_counts_on_under_a_warmup(side: str) -> None:
    """The counter's rate falls by what it counts; the warmup takes its share of whatever that is."""
    asked, found = engine(side, schedule="plateau", plateau_patience=0, warmup_epochs=2), []
    for epoch, error in enumerate((0.9, 0.9, 0.8, 0.8)):
        found += [asked.learning_rate(3 * epoch + place) for place in range(3)]
        asked.count_error(error)
    shares = [1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7] + [0.1] * 6
    assert found == pytest.approx([0.5 * share for share in shares], rel=1e-14)


def test_pytorchs_plateau_keeps_its_rate_through_a_step_of_the_warmup() -> None:
    asked = engine("torch", schedule="plateau", plateau_patience=0, warmup_epochs=2)
    batch = next(iter(asked.batches(0)))
    before = [value.clone() for value in asked.setup.network.parameters()]
    asked.train(batch, 0, asked.learning_rate(0))
    # Adam's first step is as long as its rate, wherever there is a gradient.
    moved = max(
        float((now - then).detach().abs().max())
        for now, then in zip(asked.setup.network.parameters(), before, strict=True)
    )
    assert moved == pytest.approx(0.5 / 7, rel=1e-3)
    assert {group["lr"] for group in asked.setup.optimizer.param_groups} == {0.5}


def test_both_are_what_optax_and_pytorch_have_themselves() -> None:
    """Over a run of 300 steps: optax's schedule step by step, and PyTorch's schedulers stepped after each step."""
    words = {"schedule": "cosine", "epochs": 100, "warmup_epochs": 7.0}
    steps, warmup = 300, 21
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    rising = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    chain = SequentialLR(optimizer, [rising, CosineAnnealingLR(optimizer, steps - warmup)], [warmup])
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chain.step()
    own = optax.warmup_cosine_decay_schedule(0.5 / (warmup + 1), 0.5, warmup, steps)
    with jax.enable_x64(True):
        expected = [float(np.asarray(own(np.float64(step)))) for step in range(steps)]
    assert theirs == pytest.approx(expected, rel=0, abs=1e-14)
    for side in ENGINES:
        asked = engine(side, **words)
        assert [asked.learning_rate(step) for step in range(steps)] == pytest.approx(expected, rel=0, abs=1e-15)
    assert expected[-1] == pytest.approx(0.25 * (1 + math.cos(math.pi * 278 / 279)))


def test_rates_are_float64_in_a_run_of_float32() -> None:
    settings = jax_recipes.resolve(TrainSettings(**WORDS, schedule="cosine", epochs=3, warmup_steps=4))
    with jax.enable_x64(False):
        shares = jax_schedules.shares(settings, 3, np.arange(9))
    assert shares.dtype == np.float64
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8, *FIFTHS], rtol=1e-14)


@pytest.mark.parametrize("side", ENGINES)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            {"schedule": "constant", "epochs": 2, "warmup_epochs": 2.0},
            "--warmup-epochs 2 is 6 steps, and the whole run",
        ),
        (
            {"schedule": "constant", "epochs": 2, "warmup_steps": 7},
            "--warmup-steps 7 is 7 steps, and the whole run has 6",
        ),
        (
            {"schedule": "cosine", "epochs": 9, "steps": 4, "warmup_steps": 4},
            "the whole run has 4: .*--epochs and --steps",
        ),
    ],
)
def test_a_warmup_without_an_end_is_refused_before_the_run(words: dict[str, Any], said: str, side: str) -> None:
    with pytest.raises(UserError, match=said):
        engine(side, **words)


def test_another_length_of_a_cosine_is_refused() -> None:
    """The rate would jump; what says where the run lies may change, and the same length again."""
    saved = plain(jax_recipes.resolve(TrainSettings(**WORDS, schedule="cosine", epochs=3)))
    for changed in ({"epochs": 4}, {"steps": 5}):
        with pytest.raises(UserError, match=r"can't change --(epochs to 4|steps to 5) .*cosine.*--init-from"):
            resumed(saved, changed)
    assert resumed(saved, {"epochs": 3, "patience": 2}).patience == 2
    assert resumed({**saved, "schedule": "constant"}, {"epochs": 4}).epochs == 4
