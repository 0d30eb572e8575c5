"""Times JAX in a process of its own: `python -m parity.speed.jax_worker WORKLOAD WEIGHTS`.

JAX is imported once the process is pinned: it counts the processors when it is loaded.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from parity.speed import processes
from parity.speed.workload import Workload


def main(arguments: list[str]) -> None:
    """Build the workload, then serve."""
    workload = Workload(**json.loads(arguments[0]))
    processes.claim_output()
    processes.pin(workload.threads)
    import jax

    from parity.speed.jax_job import Job

    job = Job(workload, Path(arguments[1]))
    began = time.perf_counter()
    job.run(1)
    facts = {
        "compile_seconds": time.perf_counter() - began,
        "bytes_a_step": job.bytes_a_step(),
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "flags": job.flags,
        "count": len(job.mesh.devices.flat),
    }
    actions = {"run": job.timed, "check": job.check, "ceilings": job.ceilings, "peak": job.peak, "trace": job.trace}
    processes.serve(facts, actions)


if __name__ == "__main__":
    processes.told(main)
