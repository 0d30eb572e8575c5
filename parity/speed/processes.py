"""A process that times one workload, driven over pipes: one line of JSON a question, one an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_io.errors import UserError
from parity.processes import environment
from parity.speed.workload import Workload


class Rival:
    """The asking side.

    Args:
        workload: to time.
        python: interpreter of the environment that holds its framework; this one if None.
        weights: .safetensors file in `torch_ref`'s names that both sides load.

    Attributes:
        facts: what the process said once it was ready: versions, flags, compile_seconds, logits.
    """

    def __init__(self, workload: Workload, weights: Path, python: str | None = None) -> None:
        self.workload = workload
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        command = [python or sys.executable, "-m", f"parity.speed.{workload.framework}_worker"]
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(workload.as_json()), str(weights)], env=environment(**_flags(workload)),
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise UserError(f"the interpreter {command[0]!r} can't be run: {error.strerror}; name another") from error
        try:
            self.facts = self._answer()
        except UserError:
            self.close()
            raise

    def run(self, steps: int) -> float:
        """Seconds that so many steps take, the device waited for."""
        return float(self._ask({"do": "run", "steps": steps})["seconds"])

    def ceilings(self) -> dict[str, float]:
        """Measured limits: `flops` of a large matrix product in the precision, `bytes_per_second` of a copy."""
        return self._ask({"do": "ceilings"})

    def peak_bytes(self) -> int:
        """Most memory held so far: of the device, or of the process on a CPU."""
        return int(self._ask({"do": "peak"})["bytes"])

    def trace(self, directory: str) -> None:
        """Leave a profiler's trace of three steps in a directory (JAX only)."""
        self._ask({"do": "trace", "directory": str(Path(directory).resolve())})

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines() or ["nothing"]
            last = said[-1].removeprefix("error: ")
            raise UserError(f"the process for {self.workload.name} ended ({self._process.returncode}): {last}")
        return json.loads(line)


def _flags(workload: Workload) -> dict[str, str]:
    found = {"OMP_NUM_THREADS": str(max(workload.threads // workload.devices, 1))}
    if workload.framework == "jax" and workload.devices > 1:
        # Only CPUs can be multiplied; on a GPU machine the flag does nothing.
        flags = os.environ.get("XLA_FLAGS", "")
        found["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={workload.devices}".strip()
    return found


@contextmanager
def rivals(workloads: list[Workload], weights: Path, pythons: dict[str, str | None]) -> Iterator[list[Rival]]:
    """Several processes, ended in any case."""
    started: list[Rival] = []
    try:
        for workload in workloads:
            started.append(Rival(workload, weights, pythons.get(workload.framework)))
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
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(threads: int, first: int = 0) -> None:
    """Hold this process to as many cores as it has threads, from the `first` on of those that it was given."""
    if _CORES:
        os.sched_setaffinity(0, {_CORES[(first + i) % len(_CORES)] for i in range(threads)})
