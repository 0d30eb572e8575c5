"""What a run computes on, as its description keeps it."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from typing import Any


def describe(devices: Sequence[str], processes: int = 1) -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, and devices; of several processes, of this one.

    Args:
        devices: a name for each that the run computes on, such as `cpu` or `NVIDIA H100 80GB HBM3`.
        processes: that compute together, on as many machines as it may be.
    """
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": usable_cores(),
    }
    if hasattr(os, "sysconf"):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if processes > 1:
        found["processes"] = processes
    return {**found, "devices": [f"{count} x {name}" for name, count in Counter(devices).items()]}


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as well as the system knows it."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def cpuinfo(key: str) -> str:
    """What Linux says of the first processor under a key; empty where it says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""
