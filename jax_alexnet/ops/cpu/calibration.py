"""Which of several right ways to compute a convolution is the fastest on this machine: timed once, and kept.

No rule holds on all processors: what gains a half on one with AVX-512 loses a half on one with AMX. `stopwatch`, a
process of its own, times every form on convolutions like AlexNet's; its answer is for this processor, machine, number
of cores, these versions and these settings, and is kept beside oneDNN's proofs as `convolutions-KEY.json`. Removing a
file has them timed again. Forms differ in the order of their sums, so a run that goes on elsewhere, or after a file was
removed, may differ from the whole run in its last digits; `JAX_ALEXNET_CALIBRATION=off` keeps to one order everywhere.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alexnet_io.files import atomic_file
from alexnet_io.run.machine import usable_cores
from jax_alexnet.ops.cpu import proof
from jax_alexnet.ops.cpu.switches import switched_off

# The environment variable that has nothing timed, with `off`: the usual forms are taken then.
SWITCH = "JAX_ALEXNET_CALIBRATION"

# Arithmetic of one convolution, from which on it is worth the seconds that timing takes: below it, and in networks for
# small images, nothing is timed.
LEAST_OPERATIONS = 1e10

# How much longer than the fastest a form may take that needs less memory and is compiled sooner.
MARGIN = 1.1

LIMIT_S = 120.0
STOPWATCH = (sys.executable or "python3", "-P", "-m", "jax_alexnet.ops.cpu.stopwatch")

Times = dict[str, dict[str, float]]  # task: {form: seconds}

_known: dict[tuple[str, Path | None], Times] = {}


def fastest(task: str, dtype: str, usual: str, forms: Iterable[str]) -> str:
    """The form to compute a task with; the usual one where nothing is to be, or could be, timed.

    Args:
        task: as `stopwatch` names it.
        dtype: of the maps.
        usual: what is taken without a measurement.
        forms: those that can compute it, that which needs the least memory and compilation first. The first that is
            nearly as fast as the fastest is taken.

    Raises:
        UserError: the environment variable `SWITCH` says neither on nor off.
    """
    forms = list(forms)
    if len(forms) < 2 or switched_off(SWITCH):
        return usual
    measured = _times(dtype).get(task, {})
    timed = {form: measured[form] for form in forms if form in measured}
    return _nearly_fastest(timed) if usual in timed else usual


def _nearly_fastest(timed: dict[str, float]) -> str:
    return next(form for form, seconds in timed.items() if seconds <= MARGIN * min(timed.values()))


def status(dtype: str) -> str:
    """A line that says which forms were the fastest here; nothing where none were timed."""
    if switched_off(SWITCH):
        return f"{SWITCH}={os.environ[SWITCH]}: the usual forms of convolutions, none of them timed"
    found = [f"{task} by {_nearly_fastest(timed)}" for task, timed in _times(dtype).items() if len(timed) > 1]
    return f"the fastest forms here, timed once: {', '.join(found)}" if found else ""


def _times(dtype: str) -> Times:
    facts, directory = circumstances(dtype), proof.directory()
    known = proof.key(facts), directory
    if known not in _known:
        _known[known] = kept_or_timed(facts, directory)
    return _known[known]


def circumstances(dtype: str) -> dict[str, Any]:
    """All that times may depend on: what a proof depends on, and how many cores there are."""
    return proof.circumstances(dtype) | {
        "cores": usable_cores(),
        "timed": proof.sources("cpu/stopwatch.py", "cpu/winograd.py", "cpu/minimal_filters.py", "blocks.py"),
    }


def kept_or_timed(
    facts: dict[str, Any], directory: Path | None, stopwatch: Sequence[str] = STOPWATCH, limit: float = LIMIT_S
) -> Times:
    """The times that are kept for these circumstances, or else those of a measurement now, which are then kept.

    Args:
        facts: from `circumstances`.
        directory: where they are kept; None, and one that can't be written, keeps none.
        stopwatch: the command that times; the dtype, the seconds that it may take and the directory are added.
        limit: seconds that it may take.

    Returns:
        Seconds by task and form; nothing if they couldn't be timed, which a line says.
    """
    path = None if directory is None else directory / f"convolutions-{proof.key(facts)}.json"
    if (times := _read(path, facts)) is not None:
        return times
    with proof.one_at_a_time(directory, limit, "convolutions.lock"):
        if (times := _read(path, facts)) is not None:  # of a process that was faster
            return times
        times = time_now(facts["dtype"], directory, stopwatch, limit)
        if times and path is not None:
            with contextlib.suppress(OSError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_file.write_json(path, {"seconds": times, "circumstances": facts})
    return times


def _read(path: Path | None, facts: dict[str, Any]) -> Times | None:
    """The times in a file, unless it is damaged or of other circumstances."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_bytes())
        return _checked(content["seconds"]) if content["circumstances"] == facts else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _checked(seconds: Any) -> Times:
    """Raises: ValueError, TypeError, AttributeError: these are no times."""
    times = {task: {form: float(value) for form, value in forms.items()} for task, forms in seconds.items()}
    if not all(0 < value < float("inf") for forms in times.values() for value in forms.values()):
        raise ValueError(f"{times} has times that aren't positive")
    return times


def time_now(dtype: str, directory: Path | None, stopwatch: Sequence[str] = STOPWATCH, limit: float = LIMIT_S) -> Times:
    """Run the measurement, and say so; see `kept_or_timed`."""
    print(f"timing ways to compute convolutions in {dtype} once (some 15 s)", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [*stopwatch, dtype, str(limit), "" if directory is None else str(directory)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=limit + 2,
            env=proof.environment(),
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
        return _checked(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        reason = f"it had not ended after {limit:g} s"
    except subprocess.CalledProcessError as error:
        last = next((line.strip() for line in reversed(error.stderr.splitlines()) if line.strip()), "it said nothing")
        late = error.returncode == -signal.SIGALRM
        reason = f"it had not ended after {limit:g} s" if late else f"exit code {error.returncode}: {last}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"no answer: {error}"
    print(f"they couldn't be timed ({reason}): the usual ones are taken", file=sys.stderr, flush=True)
    return {}
