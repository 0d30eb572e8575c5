"""Learning rates of both frameworks over whole recipes, at every step where they may change and beyond the end."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import run_setup as jax_setup
from jax_alexnet import schedules as jax_schedules
from jax_alexnet.engine import JaxEngine
from torch_ref import resolved_settings as torch_recipes
from torch_ref import run_setup as torch_setup
from torch_ref import schedules as torch_schedules
from torch_ref.engine import TorchEngine
from torch_ref.processes import Processes

Rate = Callable[[int, int], float]


class Recipe(NamedTuple):
    """A network's rates as its source has them, from epochs or steps on, and the first epoch or step after its end."""

    model: str
    recipe: str
    unit: str
    rates: dict[int, float]
    end: int


RECIPES = (
    # The notebook CNN/AlexNet.ipynb: Adam(lr=0.0001), 50 epochs.
    Recipe("single_column", "blog", "epochs", {0: 1e-4}, 50),
    # Caffe, models/bvlc_alexnet/solver.prototxt: base_lr 0.01, lr_policy "step", gamma 0.1, stepsize 100000,
    # max_iter 450000.
    Recipe(
        "caffenet", "caffe", "steps", {0: 1e-2, 100_000: 1e-3, 200_000: 1e-4, 300_000: 1e-5, 400_000: 1e-6}, 450_000
    ),
    # torchvision's references/classification: --lr 0.01 for AlexNet, --lr-step-size 30, --lr-gamma 0.1, 90 epochs.
    Recipe("one_weird_trick", "torchvision", "epochs", {0: 1e-2, 30: 1e-3, 60: 1e-4, 90: 1e-5}, 90),
    # cuda-convnet, layer-params-18pct.cfg: epsW 0.001; by hand to a tenth after 120 epochs and again after 130.
    Recipe("cifar_18pct", "cifar", "epochs", {0: 1e-3, 120: 1e-4, 130: 1e-5}, 140),
    # Caffe, examples/cifar10/cifar10_quick_solver*.prototxt: 4,000 iterations of 100 of 50,000 images, then 1,000.
    Recipe("cifar_80sec", "cifar", "epochs", {0: 1e-3, 8: 1e-4}, 10),
    # cuda-convnet, layer-params-conv-local-*.cfg: 300 and 150 epochs at 0.001, 10 at a tenth, 10 at a hundredth.
    Recipe("cifar_13pct", "cifar", "epochs", {0: 1e-3, 450: 1e-4, 460: 1e-5}, 470),
    Recipe("cifar_11pct", "cifar", "epochs", {0: 1e-3, 450: 1e-4, 460: 1e-5}, 470),
)


def jax_rate(settings: TrainSettings) -> Rate:
    done = jax_recipes.resolve(settings)
    return lambda epoch, step: jax_schedules.learning_rate(done, epoch, step)


def torch_rate(settings: TrainSettings) -> Rate:
    done = torch_recipes.resolve(settings)
    schedule = torch_recipes.schedule_of(done)
    return lambda epoch, step: torch_schedules.learning_rate(schedule, done.learning_rate, epoch=epoch, step=step)


FRAMEWORKS = {"jax": jax_rate, "torch": torch_rate}


def close(rates: Any) -> Any:
    """To a few last places: a power of 0.1 isn't a rounded 0.001."""
    return pytest.approx(rates, rel=1e-14, abs=0)


def expected(rates: dict[int, float], now: int) -> float:
    return rates[max(start for start in rates if start <= now)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", RECIPES, ids=lambda case: case.model)
def test_rates_over_the_whole_recipe(case: Recipe, framework: str) -> None:
    rate = FRAMEWORKS[framework](TrainSettings(model=case.model, recipe=case.recipe, data="synthetic"))
    if case.unit == "epochs":
        # Three steps an epoch: what falls with the epoch falls with its first step, and no step before.
        for step in range(3 * (case.end + 1)):
            assert rate(step // 3, step) == close(expected(case.rates, step // 3)), step
        return
    near = {start + away for start in (*case.rates, case.end) for away in (-1, 0, 1)} - {-1}
    for step in sorted(near | set(range(0, case.end, 997))):
        for epoch in (0, step // 5005):  # whatever an epoch is
            assert rate(epoch, step) == close(expected(case.rates, step)), step


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("words", "rates"),
    [
        ({"schedule": "constant"}, {0: 0.5}),
        ({"schedule": "every_epochs", "drop_every": 2, "drop_factor": 0.5}, {0: 0.5, 8: 0.25, 16: 0.125}),
        ({"schedule": "every_epochs", "drop_every": 1}, {0: 0.5, 4: 0.05, 8: 0.005, 12: 5e-4, 16: 5e-5}),
        ({"schedule": "every_steps", "drop_every": 7, "drop_factor": 0.2}, {0: 0.5, 7: 0.1, 14: 0.02}),
        ({"schedule": "at_epochs", "drop_epochs": [1, 4]}, {0: 0.5, 4: 0.05, 16: 0.005}),
        ({"schedule": "at_epochs", "drop_epochs": [3, 3]}, {0: 0.5, 12: 0.005}),
        ({"schedule": "at_epochs", "drop_epochs": [0]}, {0: 0.05}),
    ],
)
def test_schedules_that_the_user_chooses(words: dict, rates: dict[int, float], framework: str) -> None:
    """Four steps an epoch, five epochs."""
    rate = FRAMEWORKS[framework](TrainSettings(model="cifar_18pct", recipe="blog", learning_rate=0.5, **words))
    for step in range(20):
        assert rate(step // 4, step) == close(expected(rates, step)), step


ENGINES = {
    "jax": lambda settings: JaxEngine(jax_setup.prepare(jax_recipes.resolve(settings)), None),
    "torch": lambda settings: TorchEngine(
        torch_setup.prepare(torch_recipes.resolve(settings), Processes(0, 1, torch.device("cpu"))), None
    ),
}


@pytest.mark.parametrize("framework", ENGINES)
@pytest.mark.parametrize(
    ("words", "rates"),
    [
        ({"schedule": "every_epochs", "drop_every": 2, "drop_factor": 0.5}, [0.5] * 6 + [0.25] * 6),
        ({"schedule": "every_steps", "drop_every": 4}, [0.5] * 4 + [0.05] * 4 + [0.005] * 4),
        ({"schedule": "at_epochs", "drop_epochs": [1, 3]}, [0.5] * 3 + [0.05] * 6 + [0.005] * 3),
    ],
)
def test_a_run_asks_for_the_rate_of_the_step_that_comes(words: dict, rates: list[float], framework: str) -> None:
    """21 images in batches of 8 are three steps an epoch; asked in any order, as a resumed run does."""
    settings = TrainSettings(
        model="cifar_18pct",
        recipe="blog",
        learning_rate=0.5,
        batch_size=8,
        data="synthetic:classes=2,train=21,test=2",
        devices="1",
        **words,
    )
    engine = ENGINES[framework](settings)
    assert [engine.learning_rate(step) for step in range(12)] == close(rates)
    assert [engine.learning_rate(step) for step in range(11, -1, -1)] == close(rates[::-1])


@pytest.mark.parametrize("framework", ENGINES)
def test_a_run_lowers_the_rate_where_the_error_no_longer_falls(framework: str) -> None:
    settings = TrainSettings(
        model="cifar_18pct",
        recipe="blog",
        learning_rate=0.5,
        batch_size=8,
        data="synthetic:classes=2,train=21,test=2",
        devices="1",
        schedule="plateau",
        plateau_patience=0,
    )
    engine, found = ENGINES[framework](settings), []
    for epoch, error in enumerate((0.9, 0.5, 0.4, 0.4, 0.6, 0.3)):
        found.append(engine.learning_rate(3 * epoch))
        assert engine.learning_rate(3 * epoch + 2) == found[-1]
        engine.count_error(error)
    assert found == close([0.5, 0.5, 0.5, 0.5, 0.05, 0.005])


# Plateaus: by hand after the paper (section 5, the validation error stops improving) and PyTorch's documentation


class Counter:
    """Both frameworks' counters, from the same settings."""

    def __init__(self, patience: int, cooldown: int = 0, factor: float = 0.1, rate: float = 1.0) -> None:
        settings = TrainSettings(
            model="two_column",
            recipe="paper",
            schedule="plateau",
            learning_rate=rate,
            drop_factor=factor,
            plateau_patience=patience,
            plateau_cooldown=cooldown,
        )
        self.jax = jax_schedules.plateau_for(jax_recipes.resolve(settings))
        self.settings = jax_recipes.resolve(settings)
        schedule = torch_recipes.schedule_of(torch_recipes.resolve(settings))
        assert isinstance(schedule, torch_schedules.Plateau)
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        self.torch = torch_schedules.plateau(schedule, self.optimizer)

    def rates(self, errors: list[float], framework: str) -> list[float]:
        """The rate of each epoch, given the error at the end of each."""
        found = []
        for error in errors:
            if framework == "jax":
                assert self.jax is not None
                found.append(jax_schedules.learning_rate(self.settings, 0, 0, self.jax))
                assert self.jax.update(error) == jax_schedules.learning_rate(self.settings, 9, 9, self.jax)
            else:
                found.append(self.optimizer.param_groups[0]["lr"])
                self.torch.step(error)
        return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_falling_error_is_progress_and_a_rising_one_is_none(framework: str) -> None:
    falling = [0.9 - 0.05 * n for n in range(8)]
    assert Counter(patience=1).rates(falling, framework) == [1.0] * 8
    rising = Counter(patience=1).rates(falling[::-1], framework)
    assert rising == close([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_patience_cooldown_and_threshold(framework: str) -> None:
    # Patience 2: the third bad epoch in a row lowers the rate of the next one.
    still = Counter(patience=2).rates([0.5] * 8, framework)
    assert still == close([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    # Bad epochs count anew after a good one.
    errors = [0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert Counter(patience=2).rates(errors, framework) == close([1] * 7 + [0.1])
    # Two epochs of cooldown don't count.
    cooled = Counter(patience=0, cooldown=2, factor=0.5).rates([0.5] * 8, framework)
    assert cooled == close([1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])
    # Better by a ten-thousandth of the best or less is no progress.
    for share, last in ((0.99995, 0.1), (0.9998, 1.0)):
        slow = Counter(patience=0).rates([0.5, 0.5 * share, 0.5 * share], framework)
        assert slow[2] == close(last)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_rate_is_not_lowered_by_next_to_nothing(framework: str) -> None:
    """PyTorch's `eps`: a difference of 1e-8 or less counts as none. The last one is 1e-8 exactly."""
    for rate, factor, lowered in ((1.2e-8, 0.1, 1.2e-9), (1.1e-8, 0.1, 1.1e-8), (2e-8, 0.5, 2e-8)):
        found = Counter(patience=0, factor=factor, rate=rate).rates([0.5] * 3, framework)
        assert found == close([rate, rate, lowered])


def test_a_plateau_forgets_nothing_in_its_state(rng: np.random.Generator) -> None:
    """Saved after any epoch and restored in a fresh counter; PyTorch's own saving is PyTorch's."""
    settings = jax_recipes.resolve(TrainSettings(model="two_column", plateau_patience=1, plateau_cooldown=2))
    errors = np.round(rng.random(12), 1).tolist()

    def fresh() -> jax_schedules.Plateau:
        counter = jax_schedules.plateau_for(settings)
        assert counter is not None
        return counter

    straight = fresh()
    rates = [straight.update(error) for error in errors]
    assert rates[-1] < rates[0]
    for stop in range(len(errors)):
        before, after = fresh(), fresh()
        for error in errors[:stop]:
            before.update(error)
        after.restore(before.state())
        assert after == before
        assert [after.update(error) for error in errors[stop:]] == rates[stop:]


def test_only_a_plateau_has_a_counter() -> None:
    for model, recipe in (("single_column", "blog"), ("caffenet", "caffe"), ("one_weird_trick", "torchvision")):
        settings = jax_recipes.resolve(TrainSettings(model=model, recipe=recipe))
        assert jax_schedules.plateau_for(settings) is None
    paper = jax_schedules.plateau_for(jax_recipes.resolve(TrainSettings(model="two_column", recipe="paper")))
    assert paper is not None
    assert (paper.learning_rate, paper.factor, paper.patience, paper.cooldown) == (0.01, 0.1, 10, 0)
    assert (paper.threshold, paper.best, paper.bad_epochs, paper.cooldown_left) == (1e-4, math.inf, 0, 0)
    assert replace(paper, learning_rate=1.0) != paper


def test_the_papers_plateau_waits_as_pytorch_does_by_default() -> None:
    """The paper's authors judged by eye; the counting is ReduceLROnPlateau's, with its defaults."""
    for resolve in (jax_recipes.resolve, torch_recipes.resolve):
        settings = resolve(TrainSettings(model="two_column", recipe="paper"))
        assert (settings.plateau_patience, settings.plateau_cooldown, settings.drop_factor) == (10, 0, 0.1)
    schedule = torch_recipes.schedule_of(torch_recipes.resolve(TrainSettings(model="two_column", recipe="paper")))
    assert schedule == torch_schedules.Plateau(0.1, 10, 0, 1e-4) == torch_schedules.Plateau()


@pytest.mark.parametrize(
    "schedule",
    [
        torch_schedules.Constant(),
        torch_schedules.EveryEpochs(1),
        torch_schedules.EverySteps(1),
        torch_schedules.Milestones((1,)),
        torch_schedules.Cosine(1, 3),
        torch_schedules.Plateau(),
    ],
)
def test_recipes_share_schedules_that_nobody_can_change(schedule: torch_schedules.Schedule) -> None:
    with pytest.raises(FrozenInstanceError):
        schedule.factor = 0.5  # pyright: ignore[reportAttributeAccessIssue]
