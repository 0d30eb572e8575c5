"""`python -m jax_alexnet.launch --processes N -- ARGS`: N processes of `jax_alexnet.train` on this machine.

For trying out what SLURM or Open MPI would start on several. The machine's GPUs, or those that `CUDA_VISIBLE_DEVICES`
names, are divided among the processes; where there are none, each process has a CPU device of its own. They meet at
127.0.0.1, which no other machine reaches.
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

from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.parser import CommandParser
from alexnet_io.command_line.settings import REFUSED, parse, run_command, setting
from alexnet_io.errors import UserError
from jax_alexnet.gpus import visible_gpus
from jax_alexnet.launchers import spare_proxies

PROGRAM = "python -m jax_alexnet.launch"
HOST = "127.0.0.1"
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
        CommandParser(LaunchSettings, PROGRAM, flags_of(LaunchSettings)).print_help()
        print("error: what to train is missing: its flags follow after `--`", file=sys.stderr)
        return REFUSED
    taken = [word for word in theirs if word.split("=")[0] in ("--coordinator", "--num-processes", "--process-id")]
    if taken:
        raise UserError(f"{taken[0]} is set by {PROGRAM} itself: leave it out")
    return launch(settings.processes, theirs)


def launch(count: int, words: list[str]) -> int:
    """Start `count` processes of training with the flags `words` and wait for all of them.

    Raises:
        UserError: the GPUs can't be shared evenly by so many processes.
    """
    environments = _environments(count)
    address = f"{HOST}:{_free_port()}"
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
            started.append(subprocess.Popen(command, env=environments[index], start_new_session=True))
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


def _environments(count: int) -> list[dict[str, str]]:
    """The environment of each process: its own GPUs, and no proxy between it and the others."""
    found = [dict(os.environ) for _ in range(count)]
    if count == 1:
        return found
    gpus = visible_gpus()
    if len(gpus) % count:
        fitting = ", ".join(str(n) for n in range(1, len(gpus) + 1) if len(gpus) % n == 0)
        raise UserError(
            f"--processes {count} can't share {len(gpus)} GPU(s) ({', '.join(gpus)}) evenly: use {fitting} processes, "
            "name other GPUs in CUDA_VISIBLE_DEVICES, or set JAX_PLATFORMS=cpu to train on the CPU"
        )
    share = len(gpus) // count
    for index, environment in enumerate(found):
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * share : (index + 1) * share])
        spare_proxies(environment, HOST)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    run_command(main)
