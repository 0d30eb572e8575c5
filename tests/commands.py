"""Commands of `jax_alexnet` run in this process, for tests in which the process isn't the subject."""

import contextlib
import importlib
import io
import sys
from types import SimpleNamespace

import pytest

from alexnet_io.command_line.settings import run_command


def run(name: str, *words: object, devices: int = 2, code: int = 0) -> SimpleNamespace:
    """Run `python -m jax_alexnet.NAME WORDS` here, on the first `devices` virtual devices.

    Returns:
        What it wrote: `stdout` and `stderr`.
    """
    return _run(name, [*map(str, words), "--devices", str(devices)], code)


def run_alone(name: str, *words: object, code: int = 0) -> str:
    """The same of a command that has no `--devices`; returns all that it wrote."""
    done = _run(name, [*map(str, words)], code)
    return done.stdout + done.stderr


def _run(name: str, words: list[str], code: int) -> SimpleNamespace:
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, [name, *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            run_command(importlib.import_module(f"jax_alexnet.{name}").main)
    finally:
        sys.argv = argv
    done = SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())
    assert end.value.code == code, done.stdout + done.stderr
    return done
