"""What the processes of a comparison pass on in files, and the models that they load by name. Imports no framework."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotCompare
from parity.kinds.leaf import Leaf
from parity.mapping.mapping import Mapping, is_mapping


def load(spec: str) -> Any:
    """The object that `package.module:attribute` names, called if it is a function or class.

    Raises:
        CannotCompare: there is no such module or attribute.
    """
    name, _, attribute = spec.partition(":")
    if not attribute:
        raise CannotCompare(f"{spec!r} must look like package.module:attribute")
    try:
        found = getattr(import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise CannotCompare(f"{spec!r} can't be loaded: {error}") from error
    # Modules of both frameworks can be called too; a class or a function makes one.
    is_factory = isinstance(found, type) or type(found).__name__ in (
        "function",
        "builtin_function_or_method",
        "partial",
    )
    return found() if is_factory else found


def inputs(workspace: Path, side: str) -> tuple[NDArray, ...]:
    """The arrays that one side gets."""
    with np.load(workspace / f"inputs-{side}.npz") as file:
        return tuple(file[name] for name in sorted(file.files))


def leaves_of(content: list[dict[str, Any]]) -> list[Leaf]:
    """A structure as it was written."""
    return [Leaf.from_json(leaf) for leaf in content]


def whole_mapping(request: dict[str, Any]) -> Mapping | None:
    """The mapping that was given, if it is more than pairs."""
    content = request["mapping"]
    return Mapping.from_json(content) if is_mapping(content) else None
