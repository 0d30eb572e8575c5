"""Time for a whole measurement, shared out among its parts; what is cut for lack of it is written down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

LEAST_ROUNDS = 2  # of a pair that was begun: fewer have no interval


class Budget:
    """Seconds for one call, from now on.

    Each part gets a share of what is left when it begins, by its weight, so that what one leaves over is the others'.

    Args:
        seconds: in all; None for as long as it takes.
        clock: monotonic seconds.

    Attributes:
        parts: weights of all that are still to come.
        cut: a line for everything that was left out or ended early.
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._clock, self._began, self._setup = clock, clock(), math.inf
        self.parts = 1.0
        self.cut: list[str] = []

    def used(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def left(self) -> float:
        """Seconds to the end, not below 0."""
        return max(self.seconds - self.used(), 0.0)

    def begin(self, part: str, weight: float = 1.0) -> float | None:
        """When the next part should be done, in `used` seconds; None if there is no time to get it ready."""
        share, self.parts = min(weight / max(self.parts, weight), 1.0), self.parts - weight
        if self.left() <= (0.0 if self._setup == math.inf else self._setup):
            self.cut.append(f"{part}: not run, for lack of time")
            return None
        return self.used() + self.left() * share

    def set_up(self, seconds: float) -> None:
        """A part took so long to get ready; none is begun later on with less time than the quickest took."""
        self._setup = min(self._setup, seconds)

    def another_round(self, part: str, done: int, wanted: int, seconds: float, ends: float) -> bool:
        """Whether a part that has done some rounds does another one, which takes so many seconds."""
        if done >= wanted:
            return False
        if done < LEAST_ROUNDS or self.used() + seconds <= ends:
            return True
        self.cut.append(f"{part}: {done} of {wanted} rounds, for lack of time")
        return False

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        seconds = None if self.seconds == math.inf else self.seconds
        return {"seconds": seconds, "used_seconds": round(self.used(), 1), "cut": self.cut}
