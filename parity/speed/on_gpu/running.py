"""Running the parts of `parity gpu`, each in a process of its own that may fail, hang or be cut short."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from parity.comparison.environments import environment
from parity.speed.budget import Budget
from parity.speed.on_gpu.parts import Part, measured

DONE, DIFFERS, FAILED, CUT, NOT_RUN = "done", "differs", "failed", "out of time", "not run"
_LAST_LINES = 20  # of its output that are kept


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        name: of the part.
        asks: what it was to find out.
        command: as it was run, for the shell.
        state: `done`; `differs` (something is unequal, void or red); `failed`; `out of time`; `not run`, for lack of
            time or of a GPU.
        exit_code: of its process; None if it was cut short or not run.
        seconds: that it took.
        said: its last lines.
        found: what it left behind; None if nothing.
    """

    name: str
    asks: str
    command: str
    state: str
    exit_code: int | None
    seconds: float
    said: list[str]
    found: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def run(
    rows: list[Part], seconds: float, folder: Path, say: Callable[[str], None], *, on_gpu: bool
) -> Iterator[Outcome]:
    """Every part in order, one outcome each.

    Args:
        rows: the parts.
        seconds: for all of them; each gets its share of what is left.
        folder: for their output.
        say: gets a line of progress.
        on_gpu: whether there is one.
    """
    budget = Budget(seconds)
    budget.parts = sum(row.weight for row in rows)
    for i, row in enumerate(rows):
        ends = budget.begin(row.name, row.weight)
        limit = 0.0 if ends is None else ends - budget.used()
        command = [sys.executable, *row.words(measured(limit))]
        missing = "no GPU here" if row.only_on_gpu and not on_gpu else "no time left" if limit < 1.0 else ""
        if missing:
            outcome = Outcome(row.name, row.asks, shlex.join(command), NOT_RUN, None, 0.0, [missing], None)
        else:
            say(f"[{i + 1}/{len(rows)}] {row.name}: {row.asks}; at most {limit:.0f} s")
            outcome = _run(row, command, limit, folder / f"{i:02d}.txt", _kept(folder) if on_gpu else {})
        say(f"[{i + 1}/{len(rows)}] {outcome.name}: {outcome.state} after {outcome.seconds:.0f} s{_why(outcome)}")
        yield outcome


def _why(outcome: Outcome) -> str:
    """The last line of what went wrong."""
    return f": {outcome.said[-1]}" if outcome.state in (FAILED, CUT, NOT_RUN) and outcome.said else ""


def _kept(folder: Path) -> dict[str, str]:
    """Variables with which a part finds what XLA compiled for an earlier one; what times compilation sets its own."""
    return {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}


def _run(row: Part, command: list[str], limit: float, log: Path, variables: dict[str, str]) -> Outcome:
    began, code = time.monotonic(), None
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment(**variables, **row.variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:  # with all that it started: what is left of one part must not hold the next one's GPU
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - began
    said = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()[-_LAST_LINES:]
    found = read_result(row.result)
    state = CUT if code is None else _state(code, found)
    return Outcome(row.name, row.asks, shlex.join(command), state, code, round(seconds, 1), said, found)


def _state(code: int, found: dict[str, Any] | None) -> str:
    """What an exit code means: without findings nothing is done, whatever it is."""
    if found is None or code not in (0, 1, 3):
        return FAILED
    if "rows" in found and not found["rows"]:
        return CUT  # its own budget ended before anything was timed
    return DIFFERS if code == 1 else DONE


def read_result(path: Path) -> dict[str, Any] | None:
    """What a part left behind: its JSON, or the counts of a test run's XML; None if there is nothing whole."""
    if not path.exists():
        return None
    try:
        return _counts(path) if path.suffix == ".xml" else json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, ElementTree.ParseError):
        return None


def _counts(path: Path) -> dict[str, Any]:
    """Tests, failures, errors and those that were skipped, and each test with how it ended."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    keys = ("tests", "failures", "errors", "skipped")
    found: dict[str, Any] = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in keys}
    found["cases"] = [
        {
            "name": case.get("name"),
            "seconds": _finite(case.get("time")),
            "ended": next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed"),
        }
        for suite in suites
        for case in suite.iter("testcase")
    ]
    return found


def _finite(word: str | None) -> float:
    value = float(word or 0)
    return value if math.isfinite(value) else 0.0
