"""Whether oneDNN's calls work here: found out once, by a process of its own that may die or hang, and kept in a file.

What they are is part of no interface, so the number of a version says nothing. `prover` computes every kind of call
that is made and holds it to float64; its answer is for this processor, this machine, these versions and these settings,
and is kept in the user's cache directory as `onednn-KEY.json`, a file for each. Removing a file has its proof done
again.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jaxlib

from alexnet_io.command_line.printing import printable
from alexnet_io.data.cache import default_cache_dir
from alexnet_io.files import atomic_file

# A proof takes 3 s; on a machine that is busy, or under a debugger, several times that.
LIMIT_S = 60.0
_GRACE_S = 2.0  # until a process that ought to have ended itself is ended

# What ended for want of time, or by an exit of its own, may do better later: such an answer is kept for a day.
PASSING_S = 86400.0

PROVER = (sys.executable or "python3", "-P", "-m", "jax_alexnet.ops.cpu.prover")

# Signals by which a program ends itself; others come from outside and say nothing of it.
_OWN_SIGNALS = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGTRAP,
    signal.SIGSYS,
)

# Flags for XLA that computing on CPUs has nothing to do with.
_ELSEWHERE = ("--xla_force_host_platform_device_count", "--xla_gpu_", "--xla_dump_")

# oneDNN's variables that change what it says, not what it computes.
_TELLING = ("VERBOSE", "JIT_DUMP", "JIT_PROFILE", "ITT")


class Answer(NamedTuple):
    """What a proof found.

    Attributes:
        against: why oneDNN can't be used; None if it can.
        good_for: seconds for which the answer may be kept: none, some, or, if None, any number.
    """

    against: str | None
    good_for: float | None = None


_known: dict[tuple[str, Path | None], str | None] = {}
_directory: Path | None = None
_assumed = False


@contextlib.contextmanager
def assumed() -> Iterator[None]:
    """Inside the block nothing is against oneDNN: for the proof itself."""
    global _assumed
    before, _assumed = _assumed, True
    try:
        yield
    finally:
        _assumed = before


def keep_in(directory: Path | None) -> None:
    """Where answers are looked for and kept from now on; None, and no directory, for the user's cache directory."""
    global _directory
    _directory = directory if directory is not None and directory.is_dir() else None


def reason_against(dtype: str) -> str | None:
    """Why oneDNN can't be used for `dtype` in these circumstances, or None if it can; found once by each process.

    Args:
        dtype: `float32` or `bfloat16`.
    """
    if _assumed:
        return None
    facts, where = circumstances(dtype), directory()
    known = key(facts), where
    if known not in _known:
        _known[known] = kept_or_proven(facts, where)
    return _known[known]


def circumstances(dtype: str) -> dict[str, Any]:
    """All that an answer may depend on."""
    words = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith(_ELSEWHERE)]
    library = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("ONEDNN_", "DNNL_")) and not name.endswith(_TELLING)
    }
    return {
        "dtype": dtype,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": platform.python_version(),
        "machine": platform.node(),
        "system": platform.release(),
        "processor": processor(),
        "environment": library | {"XLA_FLAGS": " ".join(sorted(words))},
        # Of what is proven, and of the proof.
        "calls": sources("cpu/onednn.py", "cpu/kernel_gradient.py", "cpu/prover.py", "convolution.py"),
    }


@functools.cache
def processor() -> dict[str, str]:
    """Model, stepping, microcode and flags of the processor, as Linux tells them; empty elsewhere."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            name, colon, value = line.partition(":")
            if not colon:
                break  # the first processor's part is over
            if name.strip() in ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"):
                found[name.strip()] = value.strip()
    return found


@functools.cache
def sources(*names: str) -> str:
    """A sum over files of `jax_alexnet.ops`."""
    digest = hashlib.sha256()
    for name in names:
        with contextlib.suppress(OSError):
            digest.update((Path(__file__).parents[1] / name).read_bytes())
    return digest.hexdigest()[:32]


def directory() -> Path | None:
    """Where answers are kept: what `keep_in` was given, or the user's cache directory; None without a home."""
    if _directory is not None:
        return _directory
    try:
        return default_cache_dir()
    except RuntimeError:  # a user without a home
        return None


def key(facts: dict[str, Any]) -> str:
    """What a file of these circumstances is called by."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def kept_or_proven(
    facts: dict[str, Any], directory: Path | None, prover: Sequence[str] = PROVER, limit: float = LIMIT_S
) -> str | None:
    """The answer that is kept for these circumstances, or else that of a proof now, which is then kept.

    Args:
        facts: from `circumstances`.
        directory: where answers are kept; None, and one that can't be written, keeps none.
        prover: the command that proves; the dtype and the seconds that it may take are added.
        limit: these seconds.

    Returns:
        Why oneDNN can't be used, or None if it can.
    """
    path = None if directory is None else directory / f"onednn-{key(facts)}.json"
    answer, kept = _read(path, facts), True
    if answer is None:
        with one_at_a_time(directory, limit + _GRACE_S, "onednn.lock"):
            answer = _read(path, facts)  # of a process that was faster
            if answer is None:
                answer = prove(facts["dtype"], prover, limit)
                kept = answer.good_for != 0 and _write(path, facts, answer)
    if answer.against is None or path is None or not kept:
        return answer.against
    return f"{answer.against} (to have it checked again remove {printable(path)})"


def _read(path: Path | None, facts: dict[str, Any]) -> Answer | None:
    """The answer in a file, unless it is damaged, of other circumstances, or too old."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_bytes())
        answer = Answer(content["against"], content["good_for"])
        fitting = content["circumstances"] == facts and isinstance(answer.against, str | None)
        fresh = answer.good_for is None or 0 <= time.time() - content["time"] < answer.good_for
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return answer if fitting and fresh else None


def _write(path: Path | None, facts: dict[str, Any], answer: Answer) -> bool:
    """Whether it could be written: what can't be kept is proven again by the next process."""
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.write_json(path, {**answer._asdict(), "time": time.time(), "circumstances": facts})
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def one_at_a_time(directory: Path | None, longest: float, name: str) -> Iterator[None]:
    """One process that takes this lock works while others wait, so many seconds at most; without locks each works."""
    with contextlib.ExitStack() as stack:
        if directory is not None:
            with contextlib.suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
                _locked(stack.enter_context(open(directory / name, "ab")), longest)
        yield


def _locked(file: IO[bytes], longest: float) -> None:
    end = time.monotonic() + longest
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return None
        time.sleep(0.05)


def prove(dtype: str, prover: Sequence[str] = PROVER, limit: float = LIMIT_S) -> Answer:
    """Run the proof, and say so; see `reason_against`."""
    print(f"checking oneDNN in {dtype} once (some 3 s)", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [*prover, dtype, str(limit)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit + _GRACE_S,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
    except subprocess.TimeoutExpired:
        return _too_slow(limit)
    except (OSError, ValueError) as error:
        return Answer(f"the process that checks it can't be started: {error}", 0)
    return _answer(done, limit)


def _answer(done: subprocess.CompletedProcess[str], limit: float) -> Answer:
    last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
    if done.returncode == -signal.SIGALRM:
        return _too_slow(limit)
    if done.returncode < 0:
        number = -done.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return Answer(f"the process that checked it was ended by {name}: {last}", None if number in _OWN_SIGNALS else 0)
    if done.returncode:
        return Answer(f"the process that checked it ended with exit code {done.returncode}: {last}", PASSING_S)
    try:
        wrong = json.loads(done.stdout.splitlines()[-1])["wrong"]
    except (ValueError, LookupError, TypeError):
        return Answer(f"the process that checked it gave no answer: {last}", PASSING_S)
    if wrong is None and "reference implementation" in done.stderr:
        wrong = "it has nothing but its reference implementation here, which is slow"
    return Answer(None if wrong is None else str(wrong))


def _too_slow(limit: float) -> Answer:
    return Answer(f"the process that checked it had not ended after {limit:g} s", PASSING_S)


def environment() -> dict[str, str]:
    """This one without JAX's settings and what is left out of the circumstances; the same packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    flags = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith(_ELSEWHERE)]
    paths = [path or os.getcwd() for path in sys.path]
    return environment | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags), "PYTHONPATH": os.pathsep.join(paths)}
