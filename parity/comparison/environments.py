"""Comparisons whose two frameworks run in two processes, or in two virtual environments. Imports neither."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from parity.comparison.request import Request
from parity.comparison.store import write_npz
from parity.comparison.worker import ERROR
from parity.errors import CannotCompare
from parity.mapping.found import Found
from parity.mapping.mapping import Mapping
from parity.reports.report import Report

ROOT = Path(__file__).resolve().parents[2]  # that holds this package


def compare(request: Request, jax_python: str | None = None, torch_python: str | None = None) -> Report:
    """Run both sides as workers and read their report.

    Args:
        request: whose modules are names: `package.module:attribute` of a module, of what makes one, or of what makes
            (module, variables).
        jax_python: interpreter of the environment that holds JAX; this one if None. Likewise torch_python.
        torch_python: see `jax_python`.

    Raises:
        CannotCompare: a worker failed; its message is passed on.
    """
    directory = Path(request.workspace) if request.workspace else Path(tempfile.mkdtemp(prefix="parity-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for side, arrays in (("torch", request.inputs), ("flax", request.flax_inputs)):
            named = {f"{i:03d}": array for i, array in enumerate(arrays)}
            write_npz(directory / f"inputs-{side}.npz", named)
        (directory / "request.json").write_text(json.dumps(request.to_json()), encoding="utf-8")
        _step("flax-structure", directory, jax_python)
        _step("torch", directory, torch_python)
        _step("flax", directory, jax_python)
        report = Report.from_json(json.loads((directory / "report.json").read_text(encoding="utf-8")))
        with np.load(directory / "arrays.npz") as file:
            report.arrays = {name: file[name] for name in file.files}
        report.found = request.mapping if isinstance(request.mapping, Mapping) else _found(directory)
        return report
    finally:
        if request.workspace is None:
            shutil.rmtree(directory, ignore_errors=True)


def _found(directory: Path) -> Found | None:
    """What a mapping is made from; None where the step has left nothing."""
    if not (directory / "found.json").exists():
        return None
    return Found.from_json(json.loads((directory / "found.json").read_text(encoding="utf-8")))


def environment(**more: str) -> dict[str, str]:
    """This process's environment with more in it; Python finds this package there and what the caller can import."""
    paths = [str(ROOT), os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))} | more


def _step(step: str, directory: Path, python: str | None) -> None:
    interpreter = python or sys.executable
    try:
        done = subprocess.run(
            [interpreter, "-m", "parity.comparison.worker", step, str(directory)],
            env=environment(XLA_PYTHON_CLIENT_PREALLOCATE="false"),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise CannotCompare(f"the interpreter {interpreter!r} can't be run: {error.strerror}; name another") from error
    if done.returncode:
        raise CannotCompare(f"{step} in {interpreter}: {told(done.stderr) or f'exit code {done.returncode}'}")


def told(stderr: str) -> str:
    """The message of a step that failed: all of it where it was meant for people, else the last line."""
    lines = stderr.strip().splitlines()
    begins = [place for place, line in enumerate(lines) if line.startswith(ERROR)]
    message = "\n".join(lines[begins[-1] :] if begins else lines[-1:])
    return message.removeprefix(ERROR)
