"""`python -m jax_alexnet.launch --processes N -- ARGS`: N processes of `jax_alexnet.train` on this machine.

For trying out what SLURM or Open MPI would start on several. Each process gets a device of its own where the machine
has GPUs, and one CPU device where it has none.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar

from alexnet_io import help_text
from alexnet_io.errors import UserError
from alexnet_io.flags import flags_of
from alexnet_io.settings import REFUSED, parse, run_command, setting

PROGRAM = "python -m jax_alexnet.launch"
GRACE_SECONDS = 60  # in which the others notice by themselves that one has failed


@dataclass(frozen=True)
class LaunchSettings:
    """Start several processes of `python -m jax_alexnet.train` here; its own flags follow after `--`."""

    USAGE: ClassVar = " -- FLAGS OF TRAINING"
    EXAMPLES: ClassVar = (
        ("--processes 2 -- --model cifar_18pct --data folder:pictures --batch-size 32", "one run, shared by two"),
    )

    processes: int = setting(2, "how many", minimum=1, maximum=256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, and return 0, or the exit code of the first that failed; without flags for them, say how to."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, theirs = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    settings = parse(LaunchSettings, PROGRAM, own)
    if not theirs:
        print(help_text.render(LaunchSettings, PROGRAM, flags_of(LaunchSettings)), end="")
        print("error: what to train is missing: its flags follow after `--`", file=sys.stderr)
        return REFUSED
    taken = [word for word in theirs if word.split("=")[0] in ("--coordinator", "--num-processes", "--process-id")]
    if taken:
        raise UserError(f"{taken[0]} is set by {PROGRAM} itself: leave it out")
    return launch(settings.processes, theirs)


def launch(count: int, words: list[str]) -> int:
    """Start `count` processes of training with the flags `words` and wait for all of them."""
    address = f"127.0.0.1:{_free_port()}"
    started: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        asked.append(number)
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for index in range(count):
            place = ["--coordinator", address, "--num-processes", str(count), "--process-id", str(index)]
            command = [sys.executable, "-m", "jax_alexnet.train", *words, *(place if count > 1 else [])]
            # A session of their own: Ctrl-C reaches them through `pass_on`, once.
            started.append(subprocess.Popen(command, env=_environment(index, count), start_new_session=True))
        return _wait(started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(started: list[subprocess.Popen[bytes]]) -> int:
    """The exit code of the first that fails; the others get some time to end by themselves."""
    failed, deadline = 0, float("inf")
    while any(process.poll() is None for process in started) and time.monotonic() < deadline:
        codes = [process.returncode for process in started if process.returncode]
        if codes and not failed:
            # Killed by signal n: 128 + n, as a shell says it.
            failed, deadline = codes[0] if codes[0] > 0 else 128 - codes[0], time.monotonic() + GRACE_SECONDS
        time.sleep(0.05)
    codes = [process.poll() for process in started if process.poll()]
    if failed or codes:
        return failed or (codes[0] if codes[0] and codes[0] > 0 else 1)
    return 0


def _environment(index: int, count: int) -> dict[str, str]:
    environment = dict(os.environ)
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [word for word in visible.split(",") if word]
    if count > 1 and len(gpus) >= count:
        share = len(gpus) // count
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * share : (index + 1) * share])
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    run_command(main)
