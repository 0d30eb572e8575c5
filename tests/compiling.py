"""How XLA compiles in tests: the short way, since nearly all programs run for less time than they are compiled.

It writes its code without its newer emitters, and LLVM leaves that as it is; what is computed stays. `make test-slow`
sets OPTIMIZED and compiles as for users.
"""

import os
from importlib.metadata import version

# Here, and for users.
SHORT: dict[str, tuple[int | bool, int | bool]] = {"xla_backend_optimization_level": (0, 3)}
if version("jaxlib").startswith("0.10."):  # later ones have no other emitters, and end at a flag that they don't know
    SHORT["xla_cpu_use_fusion_emitters"] = (False, True)

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
