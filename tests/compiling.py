"""How XLA compiles in tests: the short way, since nearly all programs run for less time than they are compiled.

It writes its code without its newer emitters, and LLVM leaves that as it is; what is computed stays. `make test-slow`
sets OPTIMIZED and compiles as for users.
"""

import functools
import os
import sys
from importlib.metadata import version
from typing import Any

import numpy as np

# Here, and for users.
SHORT: dict[str, tuple[int | bool, int | bool]] = {"xla_backend_optimization_level": (0, 3)}
if version("jaxlib").startswith("0.10."):  # later ones have no other emitters, and end at a flag that they don't know
    SHORT["xla_cpu_use_fusion_emitters"] = (False, True)
    SHORT["xla_cpu_parallel_codegen_split_count"] = (1, 32)  # LLVM modules: a third of its time is their number

USUAL = {name: usual for name, (_, usual) in SHORT.items()}
_SHORT = {name: short for name, (short, _) in SHORT.items()}
OPTIMIZED = bool(os.environ.get("OPTIMIZED"))
# For programs that run for longer than this saves: convolutions in float64 are loops, which LLVM makes many times as
# fast, and nearly so at its lowest level.
LOOPS = USUAL if OPTIMIZED else _SHORT | {"xla_backend_optimization_level": 1}


def flags(options: dict[str, int | bool] | None = None) -> list[str]:
    """Options as XLA's flags; by default those for this run."""
    chosen = options or (USUAL if OPTIMIZED else _SHORT)
    return [f"--{name}={str(value).lower()}" for name, value in chosen.items()]


def start_quickly() -> None:
    """Let JAX prepare programs in less time; see `forget` for what is kept.

    Nearly all of a test run's programs are a single operation on arrays of a new shape. For each JAX makes an MLIR
    context anew, a third of the time until such a program runs; one does for many. And `jnp.asarray` of a NumPy array
    compiles a program that gives back what it is given; `jax.device_put` gives the same array without one. Neither is
    public, so only the versions that this was written for are changed.
    """
    if OPTIMIZED or "jax" not in sys.modules or not version("jax").startswith("0.10."):
        return
    jax = sys.modules["jax"]
    mlir, core = jax._src.interpreters.mlir, jax._src.core
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    if not hasattr(core, "stage_p"):
        return  # the first of these versions
    usual: Any = core.stage_p.impl

    def placed(x: Any) -> Any:
        return jax.device_put(x.copy()) if type(x) is np.ndarray else usual(x)

    core.stage_p.def_impl(placed)


def forget() -> None:
    """Drop the kept MLIR context, and with it every constant of a program that it ever held."""
    mlir = sys.modules.get("jax._src.interpreters.mlir")
    if hasattr(getattr(mlir, "make_ir_context", None), "cache_clear"):
        mlir.make_ir_context.cache_clear()  # pyright: ignore[reportOptionalMemberAccess]
