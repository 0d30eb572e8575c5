"""Commands of `jax_alexnet` run in this process, for tests in which the process isn't the subject."""

import contextlib
import importlib
import io
import sys
from types import SimpleNamespace

import pytest

from alexnet_io.command_line.settings import run_command


def run(name: str, *words: object, devices: int | None = 2, code: int = 0) -> SimpleNamespace:
    """Run `python -m jax_alexnet.NAME WORDS` here.

    Args:
        name: of the module; with a dot in it, of one in any package.
        words: arguments.
        devices: the first so many virtual devices; None for commands without such a flag.
        code: that it has to exit with.

    Returns:
        What it wrote: `stdout` and `stderr`.
    """
    out, err = io.StringIO(), io.StringIO()
    place = [] if devices is None else ["--devices", str(devices)]
    argv, sys.argv = sys.argv, [name, *map(str, words), *place]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            run_command(importlib.import_module(name if "." in name else f"jax_alexnet.{name}").main)
    finally:
        sys.argv = argv
    done = SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())
    assert end.value.code == code, done.stdout + done.stderr
    return done
