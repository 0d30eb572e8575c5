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

from parity.errors import CannotCompare, LayersUnseen

# Each step's function; its module is imported by that step alone.
STEPS = {
    "flax-structure": ("parity.candidate.jax_steps", "structure"),
    "torch": ("parity.reference.torch_step", "run"),
    "flax": ("parity.candidate.jax_steps", "run"),
}

ERROR = "error: "  # what stands before a message for people
WHOLES = (
    "With each framework in a process of its own models aren't compared as wholes: give both as objects, with the JAX "
    "model's variables, in one environment that holds both frameworks."
)


def main(arguments: list[str]) -> int:
    """Run one step; the message of a CannotCompare is printed, exit code 2."""
    step, directory = arguments
    workspace = Path(directory)
    request = json.loads((workspace / "request.json").read_text(encoding="utf-8"))
    module, function = STEPS[step]
    try:
        getattr(import_module(module), function)(workspace, request)
    except LayersUnseen as error:
        print(f"{ERROR}{error}\n{WHOLES}", file=sys.stderr)
        return 2
    except CannotCompare as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
