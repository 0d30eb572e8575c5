"""Where images come from: `open_source("digits", ...)` and its relatives."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_io.data.sources.dataset import DataSet, Split, check_labels
    from alexnet_io.data.sources.opening import open_for, open_source
    from alexnet_io.data.sources.specs import Spec, parse_spec, usage

__all__ = ["DataSet", "Spec", "Split", "check_labels", "open_for", "open_source", "parse_spec", "usage"]

_HOME = {
    "DataSet": "dataset",
    "Split": "dataset",
    "check_labels": "dataset",
    "open_for": "opening",
    "open_source": "opening",
    "Spec": "specs",
    "parse_spec": "specs",
    "usage": "specs",
}


def __getattr__(name: str) -> Any:  # so that checking a specification does not import numpy
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
