"""Time by layer, forward and backward, of one framework: `python -m parity.speed.layer_times FRAMEWORK WORKLOAD`.

Each layer runs alone on the input that it has in the network, compiled as it would be there as far as a layer alone can
be: what is fused across layers in a whole step is not seen here, so the sum is more than a step takes. It shows where
the time goes, not how much a step costs. The framework is imported once the process is pinned: it counts the processors
when it is loaded.
"""

from __future__ import annotations

import importlib
import json

from parity.speed import processes
from parity.speed.workload import Workload


def main(arguments: list[str]) -> None:
    """Print one JSON object: seconds by layer, `forward` and `backward`, the least of five."""
    workload = Workload(**json.loads(arguments[1]))
    processes.claim_output()
    processes.pin(workload.threads)
    side = importlib.import_module(f"parity.speed.{workload.framework}_layer_times")
    processes.serve({"layers": side.layer_times(workload)}, {})


if __name__ == "__main__":
    processes.told(main)
