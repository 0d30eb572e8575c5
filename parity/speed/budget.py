"""Time for a whole measurement, shared out among its parts; what is cut for lack of it is written down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

LEAST_ROUNDS = 2  # of a pair that was begun: fewer have no interval
LEAST_SECONDS = 60  # that are worth a try: two frameworks are imported, and JAX's program is compiled


class Budget:
    """Seconds for one call, from now on.

    Each part gets a share of what is left when it begins, by its weight, so that what one leaves over is the others'.

    Args:
        seconds: in all; None for as long as it takes.
        clock: monotonic seconds.

    Attributes:
        parts: weights of all that are still to come.
        cut: a line for everything that was left out or ended early.
        workable: seconds after which the first part had an interval; None if none has one yet.
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._clock, self._began = clock, clock()
        self._setup: dict[str, float] = {}
        self.parts = 1.0
        self.cut: list[str] = []
        self.workable: float | None = None

    def used(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def left(self) -> float:
        """Seconds to the end, not below 0."""
        return max(self.seconds - self.used(), 0.0)

    def begin(self, part: str, weight: float = 1.0, kind: str = "") -> float | None:
        """When the next part should be done, in `used` seconds; None if none of its kind can be ready in time."""
        share, self.parts = min(weight / max(self.parts, weight), 1.0), self.parts - weight
        if not self.has_time_for(kind):
            self.cut.append(f"{part}: not run, for lack of time")
            return None
        return self.used() + self.left() * share

    def has_time_for(self, kind: str = "") -> bool:
        """Whether more time is left than the quickest of this kind took to get ready."""
        return self.left() > self._setup.get(kind, 0.0)

    def set_up(self, seconds: float, kind: str = "") -> None:
        """A part took so long to get ready; none of its kind is begun with less time than the quickest took."""
        self._setup[kind] = min(self._setup.get(kind, math.inf), seconds)

    def another_round(self, part: str, done: int, wanted: int, seconds: float, ends: float) -> bool:
        """Whether a part that has done some rounds does another one, which takes so many seconds."""
        if done >= LEAST_ROUNDS and self.workable is None:
            self.workable = self.used()
        if done >= wanted:
            return False
        if done < LEAST_ROUNDS or self.used() + seconds <= ends:
            return True
        self.cut.append(f"{part}: {done} of {wanted} rounds, for lack of time")
        return False

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        seconds = None if self.seconds == math.inf else self.seconds
        workable = None if self.workable is None else math.ceil(self.workable)
        return {
            "seconds": seconds,
            "used_seconds": round(self.used(), 1),
            "workable_seconds": workable,
            "cut": self.cut,
            "advice": self.advice,
        }

    @property
    def advice(self) -> str:
        """What budget would do, where this one left something out; empty where it didn't."""
        if not self.cut or self.seconds == math.inf:
            return ""
        if self.workable is not None:
            return f"the smallest budget with a result here and now: about {math.ceil(self.workable)} s"
        more = max(2 * math.ceil(self.seconds), LEAST_SECONDS)
        return (
            f"nothing was timed: getting the first processes ready took all of the {self.seconds:g} s, so that the "
            f"smallest workable budget isn't known; try --budget-seconds {more}, or fewer --frameworks and --style"
        )
