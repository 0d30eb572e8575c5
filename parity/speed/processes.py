"""A process that times one workload, driven over pipes: one line of JSON a question, one an answer."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from alexnet_io.errors import UserError
from jax_alexnet.gpus import listed_gpus
from parity.comparison.environments import environment
from parity.speed.workload import Workload

Patience = Callable[[], float]


class OverBudget(UserError):
    """An answer that didn't come before the measurement's time was up."""


class Worker:
    """The asking side of a process that answers questions.

    Args:
        name: how errors call it.
        command: interpreter, `-m`, module and arguments.
        variables: of its environment, besides this process's.
        patience: gives the seconds that an answer may still take.

    Attributes:
        facts: what the process said once it was ready.

    Raises:
        UserError: it can't be run, or ended; its last line is passed on.
        OverBudget: it wasn't ready in time.
    """

    def __init__(
        self, name: str, command: list[str], variables: dict[str, str], patience: Patience = lambda: math.inf
    ) -> None:
        self.name, self._patience = name, patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                env=environment(**variables),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise UserError(f"the interpreter {command[0]!r} can't be run: {error.strerror}; name another") from error
        self._questions, self._answers = _pipes(self._process)
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        """What the process answers to a question; see `serve`."""
        try:
            self._questions.write(json.dumps({"do": action, **arguments}) + "\n")
            self._questions.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def close(self) -> None:
        """End the process and those that it started, which hold its pipes open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        seconds = self._patience()
        # An answer is one line, and none is waiting in Python's buffer: the pipe alone says whether it has come.
        if seconds < math.inf and not select.select([self._answers], [], [], max(seconds, 0.0))[0]:
            raise OverBudget(f"{self.name} had not answered when the time was up")
        line = self._answers.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines() or ["nothing"]
            last = said[-1].removeprefix("error: ")
            raise UserError(f"the process for {self.name} ended ({self._process.returncode}): {last}")
        return json.loads(line)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """What a process reads, and what it writes."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    return process.stdin, process.stdout


class Rival(Worker):
    """A process that times one workload.

    Args:
        workload: to time.
        weights: .npz file in `torch_ref`'s names that both sides load.
        python: interpreter of the environment that holds its framework; this one if None.
        patience: see `Worker`.

    Attributes:
        facts: versions, device, platform (`cpu` or `gpu`), flags, compile_seconds, bytes_a_step.
    """

    def __init__(
        self, workload: Workload, weights: Path, python: str | None = None, patience: Patience = lambda: math.inf
    ) -> None:
        self.workload = workload
        command = [python or sys.executable, "-m", f"parity.speed.{workload.framework}_worker"]
        words = json.dumps(workload.as_json()), str(weights)
        super().__init__(workload.name, [*command, *words], flags(workload, weights.parent), patience)

    def run(self, steps: int) -> float:
        """Seconds that so many steps take, the device waited for."""
        return float(self.ask("run", steps=steps)["seconds"])

    def check(self, file: Path, reference: Path | None = None) -> None:
        """Write what it computes, and what the reference does (PyTorch only); see `checks`."""
        arguments = {"file": str(file)} | ({} if reference is None else {"reference": str(reference)})
        self.ask("check", **arguments)

    def ceilings(self) -> dict[str, float]:
        """Measured limits: `flops` of a large matrix product in the precision, `bytes_per_second` of a copy."""
        return self.ask("ceilings")

    def peak_bytes(self) -> int:
        """Most memory held so far: of the device, or of the process on a CPU."""
        return int(self.ask("peak")["bytes"])

    def trace(self, directory: str) -> None:
        """Leave a profiler's trace of three steps in a directory (JAX only)."""
        self.ask("trace", directory=str(Path(directory).resolve()))


def flags(workload: Workload, folder: Path) -> dict[str, str]:
    """Variables of the environment of the process that times a workload.

    Args:
        workload: to time.
        folder: of this call alone, where PyTorch and, on GPUs, XLA keep what they compiled: nothing is left over from
            another call, so that the first process of a kind shows what compiling takes.
    """
    found = {"OMP_NUM_THREADS": str(max(workload.threads // workload.devices, 1))}
    if workload.framework == "torch":
        return found | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    # XLA tries cuDNN's kernels for most of a minute; on CPUs it is quick, and oneDNN's calls can't be kept.
    kept = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
    found |= kept if listed_gpus() else {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    # Two frameworks share a GPU's memory: neither may take most of it beforehand.
    found["XLA_PYTHON_CLIENT_PREALLOCATE"] = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if workload.devices > 1:
        # Only CPUs can be multiplied; on a GPU machine the flag does nothing.
        given = os.environ.get("XLA_FLAGS", "")
        found["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={workload.devices}".strip()
    return found


@contextlib.contextmanager
def rivals(
    workloads: list[Workload], weights: Path, pythons: dict[str, str | None], patience: Patience = lambda: math.inf
) -> Iterator[list[Rival]]:
    """Several processes, ended in any case."""
    started: list[Rival] = []
    try:
        for workload in workloads:
            started.append(Rival(workload, weights, pythons.get(workload.framework), patience))
        yield started
    finally:
        for rival in started:
            rival.close()


def serve(facts: dict[str, Any], actions: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """The answering side: say the facts, then do what each line asks for, until the input ends."""
    _say(facts)
    for line in sys.stdin:
        question = json.loads(line)
        _say(actions[question.pop("do")](**question))


def told(main: Callable[[list[str]], None]) -> None:
    """Run a worker; what a user can mend becomes one line on standard error, which the asking side passes on."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def claim_output() -> None:
    """Keep the pipe for answers: whatever a library prints goes to standard error."""
    global _pipe
    _pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


_pipe: Any = None


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=_pipe, flush=True)


def process_peak() -> int:
    """Bytes of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(threads: int, first: int = 0) -> None:
    """Hold this process to as many cores as it has threads, from the `first` on of those that it was given."""
    if _CORES:
        os.sched_setaffinity(0, {_CORES[(first + i) % len(_CORES)] for i in range(threads)})
