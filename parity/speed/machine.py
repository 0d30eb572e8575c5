"""What a measurement ran on, in words that allow another to be compared with it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import Any

from alexnet_io.run.machine import cpuinfo, processor, usable_cores


def describe() -> dict[str, Any]:
    """Processor, cores, memory and GPUs."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": usable_cores(),
        "vector_units": _vector_units(),
    }
    if hasattr(os, "sysconf"):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=False)
        found["gpus"] = listed.stdout.strip().splitlines()
    found["malloc_huge_pages"] = "hugetlb" in os.environ.get("GLIBC_TUNABLES", "")
    found["load_at_start"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return found


def _vector_units() -> list[str]:
    """Those that decide a CPU's arithmetic: AVX2, AVX-512 and its bfloat16, AMX."""
    flags = set(cpuinfo("flags").split())
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16") if name in flags]
