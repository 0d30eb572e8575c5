"""Several processes that train one network: found, joined, spoken to, and ended together."""

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from jax_alexnet.launchers import Launcher, find_launcher, is_local, proxies, unproxied

JOIN_SECONDS = 60  # for all processes to come together
HEARTBEAT_SECONDS = 30  # after which a silent process counts as dead
LEAVE_SECONDS = 120  # for the last one to finish: the first draws pictures


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the run's files and speaks."""
        return self.index == 0

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.first:
            print(text, flush=True)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """(processes, ...): what every process has, bit for bit, in their order."""
        array = np.asarray(array)
        if self.count == 1:
            return array[None]
        # As bytes: JAX would turn float64 and int64 into 32 bits.
        content = np.frombuffer(array.tobytes(), np.uint8)
        all_bytes = np.asarray(multihost_utils.process_allgather(content))
        return np.stack([np.frombuffer(row.tobytes(), array.dtype).reshape(array.shape) for row in all_bytes])

    def from_first(self, number: int) -> int:
        """The first process's number."""
        return int(self.gather(np.array(number, np.int64))[0])


@contextmanager
def joined(settings: TrainSettings) -> Iterator[Processes]:
    """Join the other processes, if there are several, and leave them at the end.

    Several there are if `--num-processes` says so, or SLURM or Open MPI. An error in one of them, or its death, ends
    all: the others notice within `HEARTBEAT_SECONDS`, at once where a connection breaks, and exit with 1 (or are
    aborted by JAX's coordination service, should they be stuck on a device).

    Raises:
        UserError: flags that don't go together, or processes that don't come within `JOIN_SECONDS`.
    """
    wanted = _wanted(settings)
    if wanted is None:
        yield Processes()
        return
    # What JAX is left to find out by itself comes from a launcher.
    _connect(wanted, None if "coordinator_address" in wanted else find_launcher(os.environ))
    processes = Processes(jax.process_index(), jax.process_count())
    try:
        yield processes
    except BaseException as error:
        _end(processes, error)
    jax.distributed.shutdown()


def _wanted(settings: TrainSettings) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`, or None for a process on its own."""
    count, index, coordinator = settings.num_processes, settings.process_id, settings.coordinator
    if count == 1 and coordinator is None and not index:
        return None
    if coordinator is None and count is None and index is None:
        launcher = find_launcher(os.environ)
        if launcher is None:
            return None
        # JAX asks SLURM for the job's tasks, which needn't be the step's.
        told = os.environ.get("SLURM_NTASKS", "").strip() in ("", str(launcher.processes))
        return {} if told else {"num_processes": launcher.processes}
    missing = [
        flag
        for flag, value in (
            ("--coordinator HOST:PORT", coordinator),
            ("--num-processes", count),
            ("--process-id", index),
        )
        if value is None
    ]
    if coordinator is None or count is None or index is None:
        raise UserError(
            f"{' and '.join(missing)} is missing: several processes need --coordinator HOST:PORT, --num-processes N "
            "and --process-id I, or start them all with python -m jax_alexnet.launch --processes N -- ..."
        )
    if index >= count:
        raise UserError(f"--process-id {index} does not exist: {count} processes are numbered from 0 to {count - 1}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator {coordinator!r} is not HOST:PORT, such as node1:29400")
    return {"coordinator_address": coordinator, "num_processes": count, "process_id": index}


def _connect(wanted: dict[str, Any], launcher: Launcher | None) -> None:
    # SIGTERM is ours: it ends the step and saves.
    jax.config.update("jax_enable_preemption_service", False)
    address = wanted.get("coordinator_address", "")
    if is_local(address.rpartition(":")[0]):
        wanted = {**wanted, "coordinator_bind_address": address}  # not at all of this machine's addresses
    if launcher:
        print(f"waiting for {launcher.processes} processes: {launcher}", file=sys.stderr, flush=True)
    expected = _expected(wanted, launcher)
    # JAX's coordination service would abort the process when its own time is over, with a C++ stack for a message.
    alarm = threading.Timer(JOIN_SECONDS, _give_up, (expected, f"No answer within {JOIN_SECONDS} s."))
    alarm.daemon = True
    alarm.start()
    try:
        with unproxied():
            jax.distributed.initialize(
                **wanted,
                initialization_timeout=2 * JOIN_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=LEAVE_SECONDS,
            )
    except (RuntimeError, ValueError) as error:
        _give_up(expected, str(error).splitlines()[0])
    finally:
        alarm.cancel()


def _expected(wanted: dict[str, Any], launcher: Launcher | None) -> str:
    """Which processes should come, how that is known, and what may keep them apart."""
    place = wanted.get("coordinator_address") or (launcher and launcher.host) or "the first process"
    count = wanted.get("num_processes") or (launcher.processes if launcher else "all")
    text = f"({count} expected at {place}): see that each was started, with its --process-id, and can reach that port"
    if launcher:
        text += f"; {launcher}"
    if names := proxies(os.environ):
        text += f"; proxies are set ({', '.join(names)}), which the processes of a run don't ask for each other"
    return text


def _give_up(expected: str, why: str) -> None:
    print(f"error: the processes of this run did not come together {expected}. {why}", file=sys.stderr, flush=True)
    os._exit(1)  # leaving in good order would wait for those that never came


def _end(processes: Processes, error: BaseException) -> None:
    """Say what happened and end this process at once: leaving in good order would wait for the others."""
    who = "" if processes.first else f"process {processes.index}: "
    if isinstance(error, SystemExit | KeyboardInterrupt):
        text, code = None, 130 if isinstance(error, KeyboardInterrupt) else int(error.code or 0)
    elif isinstance(error, UserError):
        text, code = str(error), 1
    elif isinstance(error, jax.errors.JaxRuntimeError):
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        text = (
            "another process of this run has ended or can't be reached, so this one ends too; what was saved stays: "
            f"start all again with --resume. ({line[:200]})"
        )
        code = 1
    else:
        traceback.print_exception(error)
        text, code = None, 1
    if text:
        print(f"error: {who}{text}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
