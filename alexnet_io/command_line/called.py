"""How this process was called: as `python -m PACKAGE`, or by the command that installing the package leaves."""

import sys
from importlib.metadata import version
from pathlib import Path

# What pyproject.toml installs.
CONSOLES = {"jax_alexnet": "jax-alexnet", "torch_ref": "torch-alexnet", "parity": "alexnet-parity"}
VERSION = "--version"


def as_called(program: str) -> str:
    """A program as whoever called it would write it: `jax-alexnet train` for `python -m jax_alexnet.train`.

    Args:
        program: `python -m PACKAGE`, `python -m PACKAGE.COMMAND` or `python -m PACKAGE COMMAND`.
    """
    script = next((Path(word).name for word in sys.orig_argv[1:] if not word.startswith("-")), "")
    module = program.removeprefix("python -m ")
    package = next((name for name, console in CONSOLES.items() if console == script), None)
    if package is None or module.replace(".", " ").split(" ")[0] != package:
        return program
    return script + module.removeprefix(package).replace(".", " ")


def version_line() -> str:
    """What `--version` says: the one distribution that all packages here come in."""
    return f"jax-alexnet {version('jax-alexnet')}"
