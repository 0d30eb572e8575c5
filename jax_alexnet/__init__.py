"""AlexNet and its relatives in JAX and Flax Linen.

Importing this package imports nothing else: names resolve on first use, so that command lines can parse
their settings before JAX is loaded.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_alexnet.layer_specs import Variant
    from jax_alexnet.loaded import load_run
    from jax_alexnet.model import AlexNet
    from jax_alexnet.ops.lrn import local_response_norm
    from jax_alexnet.variants import VARIANTS

__all__ = ["VARIANTS", "AlexNet", "Variant", "load_run", "local_response_norm"]

_HOME = {
    "AlexNet": "jax_alexnet.model",
    "VARIANTS": "jax_alexnet.variants",
    "Variant": "jax_alexnet.variants",
    "load_run": "jax_alexnet.loaded",
    "local_response_norm": "jax_alexnet.ops.lrn",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("jax-alexnet")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
