"""Times PyTorch in a process of its own: `python -m parity.speed.torch_worker WORKLOAD WEIGHTS`.

On several devices the first process starts the others. PyTorch is imported once the process is pinned: it counts the
processors when it is loaded.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from parity.speed import processes
from parity.speed.workload import Workload


def main(arguments: list[str]) -> None:
    """Build the workload, then serve; the first process leads the others."""
    workload = Workload(**json.loads(arguments[0]))
    processes.claim_output()
    leads = "RANK" not in os.environ
    if workload.devices > 1 and leads:
        _start_others(workload, arguments)
    share = max(workload.threads // workload.devices, 1)
    processes.pin(share, share * int(os.environ.get("RANK", "0")))
    import torch

    from parity.speed.torch_job import Job

    torch.set_num_threads(share)
    job = Job(workload, Path(arguments[1]))
    if not leads:
        job.follow()
        return
    job.lead("warm_compiler")
    began = time.perf_counter()
    job.lead("run", 1)
    facts = {
        "compile_seconds": time.perf_counter() - began,
        "bytes_a_step": None,  # PyTorch doesn't count them
        "versions": {"torch": torch.__version__},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "platform": "gpu" if torch.cuda.is_available() else "cpu",
        "flags": {
            "threads": torch.get_num_threads(),
            "mkldnn": torch.backends.mkldnn.is_available(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
        "count": workload.devices,
    }
    actions = {"run": job.timed, "check": job.check, "ceilings": job.ceilings, "peak": job.peak}
    processes.serve(facts, actions)


def _start_others(workload: Workload, arguments: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(workload.devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in range(1, workload.devices):
        environment = os.environ | shared | {"RANK": str(rank)}
        subprocess.Popen([sys.executable, "-m", "parity.speed.torch_worker", *arguments], env=environment)
    os.environ.update(shared)
    os.environ["RANK"] = "0"


if __name__ == "__main__":
    processes.told(main)
