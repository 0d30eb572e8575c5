"""A bug is a change to the text of a port, as a person would have written it; here it is made."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

MARKER = "# --- the port "  # what stands before it in a model's file is PyTorch's


@dataclass(frozen=True)
class Bug:
    """One mistake that people make when they port such a model.

    Attributes:
        name: short name, unique among the model's.
        old: text of the port that is replaced; it stands once in the part of the model's file behind `MARKER`.
        new: what stands in its place.
        place: what the report must name first: path and stage, such as `blocks/0/norm, forward`. Where the code between
            two layers is changed that is the input of the layer behind it.
        cause: regular expression that the causes named there must match, words or keys.
        equivalent: why nobody can tell this one; then nothing may be found.
    """

    name: str
    old: str
    new: str
    place: str = ""
    cause: str = ""
    equivalent: str = ""


def bugs(model: str) -> tuple[Bug, ...]:
    """The bugs that are planted into a model's port."""
    return importlib.import_module(f"examples.zoo.bugs.{model}").BUGS


def plant(model: str, bug: Bug) -> ModuleType:
    """The model's file with the bug in it, as a module of its own.

    Raises:
        ValueError: the text to be replaced doesn't stand there once.
    """
    path = Path(__file__).parent / "models" / f"{model}.py"
    original, marker, ported = path.read_text().partition(MARKER)
    if ported.count(bug.old) != 1:
        raise ValueError(f"{model}, {bug.name}: {bug.old!r} stands {ported.count(bug.old)} times in the port, not once")
    name = f"examples.zoo.planted.{model}.{bug.name}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up there
    source = original + marker + ported.replace(bug.old, bug.new)
    try:
        exec(compile(source, f"{path} with {bug.name}", "exec"), module.__dict__)
    except Exception:
        del sys.modules[name]
        raise
    return module
