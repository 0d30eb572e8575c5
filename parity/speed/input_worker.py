"""Reads, decodes and trains for `input_rates`: `python -m parity.speed.input_worker SIDE WORKLOAD SOURCE`.

SIDE is `files` (decoding and filling, without a framework), `jax` or `torch`. Each side imports what it alone needs,
once the process is pinned: frameworks count the processors when they are loaded, and need no image library here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

from parity.speed import input_data, processes
from parity.speed.workload import Workload

SIDES = {"files": ("input_files", "Files"), "jax": ("jax_input", "Jax"), "torch": ("torch_input", "Torch")}


def main(arguments: list[str]) -> None:
    """Open the images, then serve."""
    side, workload, source = arguments[0], json.loads(arguments[1]), input_data.Source(**json.loads(arguments[2]))
    stored = workload.pop("stored_size")
    processes.claim_output()
    module, name = SIDES[side]
    if side == "files":
        job = _load(module, name)(source, stored)
        processes.serve({"files": len(job.files), "bytes": sum(map(len, job.blobs))}, {"time": job.time})
        return
    processes.pin(workload["threads"])
    job = _load(module, name)(Workload(**workload), stored, input_data.open_store(source))
    actions = {"read": job.read, "start": job.start, "train": job.train, "peak": job.peak}
    processes.serve({"images": len(job.data.train), "loader": _found(job.loader), "device": job.device()}, actions)


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"parity.speed.{module}"), name)


def _found(loader: str) -> str:
    """What reads the batches: plain threads read the same ones where grain isn't installed."""
    return loader if loader != "grain" or importlib.util.find_spec("grain") else "threads"


if __name__ == "__main__":
    processes.told(main)
