"""A trace of a few steps of a run: when it begins and ends. What is traced is each framework's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

# The first step may compile, and the second waits for what the first one made.
_BEFORE, _STEPS = 2, 5

Trace = Callable[[Path], contextlib.AbstractContextManager[Any]]


def refuse_unusable(path: Path) -> None:
    """Refuse a place for traces that can't be written to; creates nothing.

    Raises:
        UserError: as said.
    """
    there = path.expanduser().resolve()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UserError(
            f"--profile {printable(path)} needs a directory, and {printable(there)} is a file: choose another"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"--profile {printable(path)}: {printable(there)} can't be written to: choose another directory"
        )


class StepProfile(contextlib.ExitStack):
    """Traces five steps from the third one on that this process takes, or what there is of them.

    Args:
        path: where the trace is written; None for none.
        trace: opens a trace into a directory and, left, writes it.
        step: steps done when the process begins.
        last_step: the step after which the run is over.
    """

    def __init__(self, path: Path | None, trace: Trace, step: int, last_step: int) -> None:
        super().__init__()
        self._path, self._trace = path, trace
        self.first = max(min(step + _BEFORE, last_step - _STEPS), step)  # steps before those that are traced
        self.last = min(self.first + _STEPS, last_step)

    def before(self, step: int) -> None:
        """Begin, if it is time: `step` steps are done."""
        if self._path is not None and step == self.first:
            self.enter_context(self._trace(self._path.expanduser().resolve()))

    def is_over(self, step: int) -> bool:
        """Whether the step after which `step` are done was the last one to be traced; it must be waited for."""
        return self._path is not None and step == self.last
