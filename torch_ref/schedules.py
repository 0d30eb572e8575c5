"""Learning-rate schedules: what a recipe says, and the rate at an epoch or step as a pure function of it.

Epochs and steps count from 0. Rates are PyTorch's closed forms, as its `LambdaLR` would take them, and not the chain of
products of its other schedulers, so that they do not drift by rounding and a resumed run needs no state of theirs.
"""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


@dataclass(frozen=True)
class Constant:
    """The first rate throughout."""


@dataclass(frozen=True)
class EveryEpochs:
    """Multiplied by `factor` every `epochs` epochs."""

    epochs: int
    factor: float = 0.1


@dataclass(frozen=True)
class EverySteps:
    """Multiplied by `factor` every `steps` optimizer steps (Caffe's "step" policy)."""

    steps: int
    factor: float = 0.1


@dataclass(frozen=True)
class Milestones:
    """Multiplied by `factor` when each of `epochs` begins."""

    epochs: tuple[int, ...]
    factor: float = 0.1


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the first rate to 0, step by step, after the warmup: CosineAnnealingLR in a SequentialLR.

    PyTorch's schedulers are stepped after the optimizer, so that the first step has the first rate, and 0 would come in
    the step after the last.
    """

    warmup: int
    steps: int  # of the whole run


@dataclass(frozen=True)
class Plateau:
    """Multiplied by `factor` when the validation loss has not improved for more than `patience` epochs.

    Counted as PyTorch's ReduceLROnPlateau does, with its defaults: an improvement is one by more than
    `threshold` relative to the best loss, and bad epochs are not counted during the cooldown. The paper's
    authors watched the validation error and judged by eye (section 5).
    """

    factor: float = 0.1
    patience: int = 10
    cooldown: int = 0
    threshold: float = 1e-4


Schedule = Constant | EveryEpochs | EverySteps | Milestones | Cosine | Plateau


def learning_rate(schedule: Schedule, base: float, *, epoch: int, step: int) -> float:
    """The rate of the weights at an epoch and optimizer step, both counted from 0 over the whole run.

    Args:
        schedule: The rule.
        base: The first rate.
        epoch: Completed epochs.
        step: Completed optimizer steps.

    Raises:
        TypeError: A plateau depends on the losses, not on time; use `plateau`.
    """
    match schedule:
        case Constant():
            return base
        case EveryEpochs():
            drops = epoch // schedule.epochs
        case EverySteps():
            drops = step // schedule.steps
        case Milestones():
            drops = sum(epoch >= milestone for milestone in schedule.epochs)
        case Cosine():
            done = (step - schedule.warmup) / (schedule.steps - schedule.warmup)
            return base * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
        case _:
            raise TypeError("a plateau schedule has no closed form; step torch_ref.schedules.plateau with each loss")
    return base * schedule.factor**drops


def warmup_share(step: int, warmup: int) -> float:
    """What a warmup of so many steps leaves of the rate after `step` steps: rising evenly, 1 from its end on.

    This is `LinearLR` with a `start_factor` of 1 / (warmup + 1), one step's rise: no step is taken at a rate of 0, and
    the first step after the warmup has the whole rate.
    """
    return min((step + 1) / (warmup + 1), 1.0)


def plateau(schedule: Plateau, optimizer: Optimizer) -> ReduceLROnPlateau:
    """PyTorch's scheduler with the settings of `schedule`; call its `step(loss)` after every epoch."""
    return ReduceLROnPlateau(
        optimizer,
        mode="min",
        factor=schedule.factor,
        patience=schedule.patience,
        cooldown=schedule.cooldown,
        threshold=schedule.threshold,
    )
