"""Proving a Flax model equal to the PyTorch model it was ported from, and naming the bug when it is not.

`compare(flax_module, torch_module, inputs)` works on any pair of models; `python -m parity` on the networks of this
repository. Importing this package imports neither framework.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.comparison.compare import compare
    from parity.mapping.mapping import Mapping
    from parity.reports.report import Report

__all__ = ["Mapping", "Report", "compare"]

_HOME = {
    "compare": "parity.comparison.compare",
    "Mapping": "parity.mapping.mapping",
    "Report": "parity.reports.report",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("jax-alexnet")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
