"""How this process was started: alone, or by torchrun as one of several. Loads no framework."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from alexnet_io.errors import UserError

REFUSED, FAILED = 2, 1  # exit codes: nothing was begun, and something went wrong on the way
_PATIENCE = 20.0  # seconds; torchrun ends the other processes within one once the first has failed


def rank() -> int:
    """Which of the run's processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes the run has, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Which of this machine's processes this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_count() -> int:
    """How many of the run's processes this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(count())))


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Around what all processes find and say alike: the first one says it, the others are silent.

    A UserError ends the process with exit code `REFUSED`.
    """
    if rank() == 0:
        try:
            yield
        except UserError as error:
            sys.stdout.flush()
            print(f"error: {error}", file=sys.stderr)
            _end(REFUSED)
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        try:
            yield
        except UserError:
            end_after_the_first(REFUSED)
        except SystemExit as end:
            if end.code:
                end_after_the_first(REFUSED)
            raise


def end_after_the_first(code: int) -> NoReturn:
    """End this process, but not before the first one has said why.

    torchrun ends all processes as soon as one has failed: a quicker one would cut the first one's message off.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_PATIENCE)
    _end(code)


def _end(code: int) -> NoReturn:
    """End this process: at once, if it has met the others.

    A process group that is still there when the interpreter takes its modules apart can abort the process (SIGABRT from
    one of gloo's threads), and torchrun would report that instead of the exit code.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
