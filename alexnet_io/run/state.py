"""What of a run's bookkeeping its checkpoints keep, beside the state of what computes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from alexnet_io.run.engine import Sums


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        step: steps that were handed out.
        rate: learning rate of the last step that was counted.
        sums: of the steps since the last row.
        epoch_sums: of the steps since the epoch began.
        best: the largest share of images that steer the run which was told right; the step that did.
        best_step: see `best`.
        flat_since: see `alexnet_io.run.flat_loss`.
    """

    step: int = 0
    rate: float | None = None
    sums: Sums = field(default_factory=Sums)
    epoch_sums: Sums = field(default_factory=Sums)
    best: float = -math.inf
    best_step: int = 0
    flat_since: int | None = None

    @classmethod
    def restored(cls, step: int, facts: dict[str, Any]) -> RunState:
        """From a checkpoint's facts, of older programs, too."""
        sums, best = facts["sums"], facts["best"]
        state = cls(step, facts.get("rate"), Sums(**sums) if isinstance(sums, dict) else Sums(*sums))
        state.epoch_sums = Sums(**facts.get("epoch_sums", {}))
        state.flat_since = facts["flat_since"]
        if best is not None and best >= 0:
            state.best, state.best_step = best, facts["best_step"]
        return state

    @property
    def known_best(self) -> float | None:
        """The best share; None before the first evaluation."""
        return self.best if math.isfinite(self.best) else None

    def facts(self, steps_per_epoch: int) -> dict[str, Any]:
        """What `restored` needs."""
        return {
            "epoch": self.step // steps_per_epoch,
            "best": self.known_best,
            "best_step": self.best_step,
            "sums": asdict(self.sums),
            "epoch_sums": asdict(self.epoch_sums),
            "flat_since": self.flat_since,
            "rate": self.rate,
        }

    def forget_best(self) -> None:
        """What was best on other images says nothing."""
        self.best, self.best_step = -math.inf, 0
