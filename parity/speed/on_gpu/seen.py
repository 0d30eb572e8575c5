"""What both frameworks see of a machine: `python -m parity.speed.on_gpu.seen --json FILE`."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from alexnet_io.files import atomic_file
from parity.speed import machine

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "triton")


def look() -> dict[str, Any]:
    """Machine, versions, and the devices of each framework, or why it can't be asked."""
    return {"machine": machine.describe(), "versions": _versions(), "jax": _asked(_jax), "torch": _asked(_torch)}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _asked(framework: Any) -> dict[str, Any]:
    """Its answer; a framework that is missing or broken is a finding, too."""
    try:
        return framework()
    except Exception as error:  # whatever a driver or a package may raise
        return {"error": f"{type(error).__name__}: {error}"}


def _jax() -> dict[str, Any]:
    jax = importlib.import_module("jax")
    devices = jax.devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    kinds = [device.device_kind for device in devices]
    return {"platform": jax.default_backend(), "devices": kinds, "bytes_limit": limits}


def _torch() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count()
    return {
        "devices": [torch.cuda.get_device_name(i) for i in range(count)],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if count else None,
    }


def main(arguments: list[str]) -> None:
    """Write it."""
    found = look()
    atomic_file.write_json(Path(arguments[0].removeprefix("--json=")), found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
