"""How far training has come: a bar on a terminal, plain lines anywhere else, silence if nobody listens."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from rich import console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from alexnet_io.command_line import printing
from alexnet_io.files.closing import Closing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

_BAR_INTERVAL = 0.1  # seconds between drawings of the bar
_FIRST_INTERVAL = 5.0  # seconds between plain lines at first; long runs get fewer
_LAST_INTERVAL = 300.0


class Progress(Closing):
    """Shows the steps of a run. It never raises because of its output: training matters more.

    Args:
        total: the step at which the run ends.
        start: the step at which it begins, 0 unless resumed.
        preparing: what the first step is waited for, such as "compiling".
        stream: standard output by default.
        terminal: whether to draw a bar; by default whether `stream` is a terminal.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        preparing: str = "",
        stream: TextIO | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._stream: TextIO | None = sys.stdout if stream is None else stream
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._shown_at = clock() - _LAST_INTERVAL
        self._started = clock()
        self._bar: Bar | None = None
        if terminal is None:
            terminal = self._stream is not None and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        if terminal:
            self._open_bar(start, preparing)
        elif preparing:
            self._say(preparing)

    def update(
        self,
        step: int,
        *,
        epoch: float | None = None,
        loss: float | None = None,
        top1: float | None = None,
        images_per_second: float | None = None,
    ) -> None:
        """Says that `step` steps are done. Cheap enough for every step: it is shown only now and then.

        Args:
            step: steps done in all.
            epoch: passes over the training set done.
            loss: of the latest steps, in nats.
            top1: share of the latest examples that were right, 0 to 1.
            images_per_second: over all devices.
        """
        now = self._clock()
        if self._first is None:
            self._first = (step, now)
        interval = _BAR_INTERVAL if self._bar else _line_interval(now - self._first[1])
        if now - self._shown_at < interval and step < self._total:
            return
        self._shown_at = now
        facts = [
            None if epoch is None else f"epoch {epoch:.2f}",
            None if loss is None else f"loss {loss:.4f}",
            None if top1 is None else f"top-1 {top1:.1%}",
            None if images_per_second is None else f"{_rounded(images_per_second)} images/s",
            self._time_left(step, now),
        ]
        text = "  ".join(fact for fact in facts if fact)
        if self._bar is None:
            self._say(f"step {step}/{self._total}  {text}".rstrip())
        else:
            self._draw(self._bar, step, text)

    def message(self, text: str) -> None:
        """Prints `text` as lines that stay, above the bar if there is one."""
        if self._bar is None:
            self._say(text)
            return
        shown = text if self._stream is None else printing.encodable(text, self._stream)
        with self._giving_up_quietly():
            self._bar.console.print(Text(shown), soft_wrap=True)

    def close(self) -> None:
        """Leaves the bar as it is and the cursor on a fresh line."""
        if self._bar is not None:
            with self._giving_up_quietly():
                self._bar.stop()
            self._bar = None

    def _open_bar(self, start: int, preparing: str) -> None:
        # No refreshing thread: it would take time from the data workers and forking beside it is unsafe.
        self._bar = Bar(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False, table_column=Column(no_wrap=True)),
            console=_quiet_console(self._stream),
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=self._total, completed=start, facts=preparing)
        with self._giving_up_quietly():
            self._bar.start()
            self._bar.refresh()

    def _draw(self, bar: Bar, step: int, text: str) -> None:
        with self._giving_up_quietly():
            bar.update(self._task, completed=step, facts=text)
            bar.refresh()

    @contextlib.contextmanager
    def _giving_up_quietly(self) -> Iterator[None]:
        """Ends the bar without a word if its terminal is gone."""
        try:
            yield
        except (OSError, UnicodeError):
            if self._stream is not None:
                printing.silence(self._stream)
            bar, self._bar, self._stream = self._bar, None, None
            with contextlib.suppress(OSError):
                if bar is not None:
                    bar.console.quiet = True
                    bar.stop()

    def _say(self, text: str) -> None:
        if self._stream is not None and not printing.say(text, self._stream):
            self._stream = None

    def _time_left(self, step: int, now: float) -> str | None:
        """From the mean time of a step since the first one, which alone waits for the compiler."""
        if self._first is None or step <= self._first[0]:
            return None
        first_step, first_time = self._first
        seconds = (now - first_time) / (step - first_step) * max(self._total - step, 0)
        return f"{duration(seconds)} left" if step < self._total else f"took {duration(now - self._started)}"


def now_and_then(seconds: float = 5.0) -> Callable[[int, int, str], None]:
    """A callback for long preparations, of what is done, all there is, and a word: a line every few seconds."""
    said = time.monotonic()

    def say(done: int, total: int, what: str) -> None:
        nonlocal said
        if time.monotonic() - said >= seconds:
            said = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", flush=True)

    return say


def duration(seconds: float) -> str:
    """A length of time as people say it: 8s, 5m 12s, 3h 07m, 2d 04h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def _line_interval(elapsed: float) -> float:
    """Seconds between plain lines: some thirty while a run grows threefold, so that long logs stay readable."""
    return min(max(_FIRST_INTERVAL, elapsed / 30), _LAST_INTERVAL)


def _rounded(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def _quiet_console(stream: TextIO | None) -> Console:
    class QuietConsole(console.Console):
        """rich ends the program when a pipe closes; here the training goes on, and writes to nowhere."""

        def on_broken_pipe(self) -> None:
            # Not raised: under a bar anybody's `print` comes by here, the training's and its callbacks' too.
            self.quiet = True
            if stream is not None:
                printing.silence(stream)

    return QuietConsole(file=stream, force_terminal=True, highlight=False)
