"""One side of a comparison in a process of its own: `python -m parity.comparison.worker STEP WORKSPACE`.

The two frameworks may live in different virtual environments; all that passes between them are files in the
workspace: `request.json`, captures, and at the end `report.json`. Each step imports one framework.

1. `flax-structure`: the Flax module's leaves (no arithmetic).
2. `torch`: pairs the leaves, runs the PyTorch module, writes captures and weights.
3. `flax`: runs the Flax module leaf by leaf against the captures, writes the report and what the mapping is made from.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from parity.errors import CannotCompare

# Each step's function; its module is imported by that step alone.
STEPS = {
    "flax-structure": ("parity.candidate.jax_steps", "structure"),
    "torch": ("parity.reference.torch_step", "run"),
    "flax": ("parity.candidate.jax_steps", "run"),
}


def main(arguments: list[str]) -> int:
    """Run one step; a CannotCompare is printed as one line, exit code 2."""
    step, directory = arguments
    workspace = Path(directory)
    request = json.loads((workspace / "request.json").read_text(encoding="utf-8"))
    module, function = STEPS[step]
    try:
        getattr(import_module(module), function)(workspace, request)
    except CannotCompare as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
