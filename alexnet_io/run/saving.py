"""When a run is saved, what its checkpoints keep beside the engine's state, and that all of it is finite."""

from __future__ import annotations

import time
from typing import Any

from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Engine
from alexnet_io.run.state import RunState


class Saving:
    """The checkpoints of a run, in one of its processes.

    Args:
        engine: whose state is saved.
        identity: which data the run has, from `sources.fingerprint`.
        directory: where they lie; None in all processes but the first.
        seconds: how long to wait from one to the next.

    Attributes:
        step: of the newest checkpoint that is up to date; -1 for none.
        is_due: whether all processes agreed to save as soon as the epoch lets them.
    """

    def __init__(
        self, engine: Engine, identity: dict[str, Any], directory: RunDirectory | None, seconds: float
    ) -> None:
        self.step, self.is_due = -1, False
        self._engine, self._identity, self._directory, self._seconds = engine, identity, directory, seconds
        self._saved_at = time.monotonic()

    def is_time(self) -> bool:
        """Whether the last checkpoint is old enough for this process to want another."""
        return time.monotonic() - self._saved_at >= self._seconds

    @property
    def kept(self) -> str:
        """What is left to a run that fails, for people."""
        where = f" in {self._directory.checkpoints}" if self._directory else ""
        return f"The last finite checkpoint is kept{where}"

    def save(self, state: RunState) -> None:
        """Save all that going on needs.

        Raises:
            UserError: a weight is not finite.
        """
        self._check_finite(state.step)
        self._engine.save(state.step, self._facts(state))
        self.step, self._saved_at, self.is_due = state.step, time.monotonic(), False

    def catch_up(self, state: RunState) -> None:
        """Save, unless the newest checkpoint says it all."""
        if self.step != state.step:
            self.save(state)

    def forget(self) -> None:
        """The newest checkpoint no longer says it all: an evaluation came after it."""
        self.step = -1

    def save_best(self, state: RunState) -> None:
        """Save the weights of the best evaluation so far, which was of this step.

        Raises:
            UserError: a weight is not finite.
        """
        self._check_finite(state.step)
        self._engine.save_best(state.step, self._facts(state), state.best)

    def _check_finite(self, step: int) -> None:
        if not self._engine.weights_are_finite():
            self._engine.fail(
                f"the weights are no longer finite after step {step}; they are not saved. {self.kept}: use "
                "a smaller --learning-rate"
            )

    def _facts(self, state: RunState) -> dict[str, Any]:
        """What `TrainingLoop.begin` needs besides the engine's state."""
        return state.facts(self._engine.steps_per_epoch) | {"data": self._identity}
