"""`python -m parity convert`: weights, by the mapping that a comparison has found."""

from __future__ import annotations

import sys

from alexnet_io.command_line import output_file
from parity import settings
from parity.mapping import files
from parity.mapping.mapping import Mapping


def convert(chosen: settings.Convert) -> int:
    """Convert a file of weights; returns the exit code."""
    file, weights, output = str(chosen.mapping), str(chosen.weights), str(chosen.output)
    mapping = Mapping.load(file)
    if mapping.comparison.get("verdict") != "equal":
        verdict = mapping.comparison.get("verdict", "unknown")
        print(f"note: the comparison that wrote {file} ended as {verdict}, not as equal", file=sys.stderr)
    given = files.read(weights)
    made = mapping.to_jax(given) if chosen.to == "jax" else mapping.to_torch(given)
    output_file.write("--output", output, files.to_bytes(made, output))
    if mapping.idle and chosen.to == "jax":
        print(
            f"note: {mapping.jax_model} computes nothing with {', '.join(mapping.idle)}: not written", file=sys.stderr
        )
    model = mapping.jax_model if chosen.to == "jax" else mapping.torch_model
    print(f"{len(made)} tensors of {model}, {sum(array.size for array in made.values()):,} values")
    return 0
