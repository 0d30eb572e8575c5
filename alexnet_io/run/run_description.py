"""run.json, by which a directory is a run: what it is of, and what it was made with."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file

DESCRIPTION = "run.json"
FORMAT = 1

_PACKAGES = ("jax-alexnet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "torch")
_REQUIRED = ("format", "model", "class_names", "settings", "versions")


def write_description(
    path: Path,
    model: str,
    class_names: list[str],
    normalisation: Mapping[str, Any],
    settings: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Write run.json into directory `path`; see `RunDirectory.describe` for the rest."""
    description = {
        "format": FORMAT,
        "model": model,
        "classes": len(class_names),
        "class_names": class_names,
        "normalisation": normalisation,
        **more,
        "settings": settings,
        "versions": package_versions(),
        **_occasion(),
    }
    atomic_file.write_json(path / DESCRIPTION, description)


def add_resumption(path: Path, how: Mapping[str, Any]) -> None:
    """Add to run.json in directory `path` that the run went on; see `RunDirectory.went_on`."""
    found = read_description(path)
    again = [*found.get("resumed", []), {**_occasion(), **how}]
    atomic_file.write_json(path / DESCRIPTION, {**found, "resumed": again})


def _occasion() -> dict[str, Any]:
    """When, and by which command."""
    return {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": sys.argv}


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads run.json of the run in directory `path`, without locking it.

    Raises:
        UserError: there is no run there, or its description is damaged or of an unknown format.
    """
    file = Path(path).expanduser().resolve() / DESCRIPTION
    shown = printable(file)
    remedy = "pass the directory that training wrote (its --output)"
    try:
        description = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no run in {printable(file.parent)}: {DESCRIPTION} is missing; {remedy}.") from None
    except OSError as error:
        raise UserError(f"cannot read {shown}: {error.strerror or error}; {remedy}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown} is damaged ({error}); restore it from a copy, or {remedy}.") from None
    if not isinstance(description, dict):
        raise UserError(f"{shown} is damaged: it holds no JSON object; restore it from a copy, or {remedy}.")
    missing = [key for key in _REQUIRED if key not in description]
    if missing:
        raise UserError(f"{shown} lacks {', '.join(missing)}; restore it from a copy, or {remedy}.")
    if description["format"] != FORMAT:
        raise UserError(f"{shown} has format {description['format']!r}, this version reads {FORMAT}; update it.")
    names = description["class_names"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise UserError(f"{shown} is damaged: class_names must be a list of names; restore it from a copy.")
    return description


def package_versions() -> dict[str, str]:
    """Versions of Python, the system and the installed packages that decide a run's numbers. Imports none."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
