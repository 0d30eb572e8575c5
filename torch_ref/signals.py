"""Stopping a run from outside: the step in progress ends, the run saves, the exit code says which signal it was."""

import signal
import time
from types import FrameType

# torchrun passes on the signals that it gets, and Ctrl-C reaches the processes by themselves as well: within so
# many seconds a second one is the first once more.
_ECHO = 2.0


class Signals:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a later second one ends at once."""

    received = 0

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._at = number, time.monotonic()
        elif time.monotonic() - self._at > _ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
