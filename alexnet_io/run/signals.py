"""Stopping a run from outside: the step in progress ends, the run saves, the exit code says which signal it was."""

import signal
import time
from types import FrameType
from typing import ClassVar


class Signals:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one ends at once.

    Args:
        echo_seconds: a second signal within so many seconds is the first once more: launchers pass on the signals
            that they get, and Ctrl-C reaches their processes by themselves as well.

    Attributes:
        received: number of the signal that came, or 0.
        last: of the latest of all; whoever trains several runs in turn sets it to 0 before each, and learns of a signal
            that came when a run had no step left to stop after.
    """

    received = 0
    last: ClassVar[int] = 0

    def __init__(self, echo_seconds: float = 0.0) -> None:
        self._echo = echo_seconds

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._at = number, time.monotonic()
            Signals.last = number
        elif time.monotonic() - self._at >= self._echo:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
