"""How long the search for causes may run, in seconds: the last resort, behind the counts of what is tried.

Counts let a slow machine name the same causes as a fast one. Of models of very many operations they let minutes pass.
Seconds are those of this thread's processor, so that no load of the machine counts, and a report says where they ended
a search.
"""

from __future__ import annotations

import time

MOST_SECONDS = 90.0  # for one model, whatever is found
_BETWEEN = 0.02  # seconds between two looks at the processor's clock, which may take longer than what is timed


class Clock:
    """How long the search for causes in one model has run: while it is entered, and altogether."""

    def __init__(self) -> None:
        self.most = MOST_SECONDS
        self._before = 0.0
        self._began: float | None = None
        self._looked = float("-inf")
        self._over = False

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._before, self._began = self.seconds, None

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._before + (0.0 if self._began is None else time.thread_time() - self._began)

    @property
    def over(self) -> bool:
        """Whether it may run no longer."""
        now = time.perf_counter()
        if not self._over and now - self._looked > _BETWEEN:
            self._looked, self._over = now, self.seconds > self.most
        return self._over

    @property
    def told(self) -> str:
        """That it has ended a search, in words."""
        return f"the search for causes ended after {self.most:g} s of computing, before all had been tried"
