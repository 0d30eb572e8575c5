"""Learning rates by epoch and step, in Python floats on the host, so that both frameworks can be held to them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run import length


@dataclass
class Plateau:
    """Divide the learning rate when a metric that should fall has stopped falling.

    Counts exactly as `torch.optim.lr_scheduler.ReduceLROnPlateau` in its `min`, `rel` mode: progress means a value
    below (1 - threshold) * best; more than `patience` epochs in a row without it multiply the learning rate by
    `factor`; in the `cooldown` epochs after that, epochs without progress don't count.
    """

    learning_rate: float
    factor: float
    patience: int
    cooldown: int
    threshold: float = 1e-4
    best: float = math.inf
    bad_epochs: int = 0
    cooldown_left: int = 0

    def update(self, metric: float) -> float:
        """Count one epoch's metric; returns the learning rate for the next."""
        if metric < self.best * (1 - self.threshold):
            self.best, self.bad_epochs = metric, 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            lowered = self.learning_rate * self.factor
            if self.learning_rate - lowered > 1e-8:  # PyTorch leaves differences below its `eps` alone
                self.learning_rate = lowered
            self.cooldown_left, self.bad_epochs = self.cooldown, 0
        return self.learning_rate

    def state(self) -> dict[str, float | int]:
        """What a checkpoint must hold to go on counting."""
        names = ("learning_rate", "best", "bad_epochs", "cooldown_left")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, float | int]) -> None:
        """Go on from `state()`."""
        for name, value in state.items():
            setattr(self, name, value)


def learning_rate(settings: CompleteSettings, epoch: int, step: int, plateau: Plateau | None = None) -> float:
    """Learning rate of the weights, but for what `shares` makes of it.

    Args:
        settings: the run's.
        epoch: epochs finished before this step, from 0; drops at epoch 30 are first felt in epoch 30.
        step: steps done before this one, from 0.
        plateau: the counter, if the schedule is `plateau`.

    Raises:
        ValueError: the schedule is `plateau`, and there is no counter.
    """
    match settings.schedule:
        case "plateau":
            if plateau is None:
                raise ValueError("under a plateau schedule the rate is its counter's: pass the one of `plateau_for`")
            return plateau.learning_rate
        case "every_epochs":
            drops = epoch // settings.drop_period
        case "every_steps":
            drops = step // settings.drop_period
        case "at_epochs":
            drops = sum(epoch >= milestone for milestone in settings.milestones)
        case _:
            drops = 0
    return settings.learning_rate * settings.drop_factor**drops


def shares(settings: CompleteSettings, per_epoch: int, steps: Any) -> NDArray[np.float64]:
    """What a warmup and a cosine leave of `learning_rate`, by optax's schedules in float64: 1 without either.

    optax counts the steps that are done, and so does this: of W steps of warmup the first has 1 / (W + 1) of the rate,
    the k-th k / (W + 1), and the step after them all of it. A cosine over the rest of a run of T steps leaves
    (1 + cos(pi (s - W) / (T - W))) / 2 of it after s steps: all at its first step, and 0 one step after the last.

    Args:
        settings: the run's.
        per_epoch: steps of an epoch.
        steps: (n,) steps done before each step that is asked for, from 0.

    Raises:
        UserError: the warmup is as long as the run.
    """
    warmup = length.warmup_steps(settings, per_epoch)
    if not warmup and settings.schedule != "cosine":
        return np.ones(np.shape(steps))
    over = length.last_step(settings, per_epoch) if settings.schedule == "cosine" else None
    with jax.enable_x64(True):
        return np.asarray(_optax_schedule(warmup, over)(jnp.asarray(steps, jnp.float64)))


@functools.cache
def _optax_schedule(warmup: int, over: int | None) -> Callable[[jax.Array], jax.Array]:
    """Compiled: a warmup of so many steps, and a cosine over a run of so many where there is one."""
    start = 1 / (warmup + 1)
    if over is None:
        return jax.jit(optax.linear_schedule(start, 1.0, warmup))
    if not warmup:
        return jax.jit(optax.cosine_decay_schedule(1.0, over))
    return jax.jit(optax.warmup_cosine_decay_schedule(start, 1.0, warmup, over))


def plateau_for(settings: CompleteSettings) -> Plateau | None:
    """A fresh counter if the schedule asks for one."""
    if settings.schedule != "plateau":
        return None
    return Plateau(settings.learning_rate, settings.drop_factor, settings.plateau_patience, settings.plateau_cooldown)
