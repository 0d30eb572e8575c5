"""Whether a batch can fit into memory: by arithmetic, before anything is read or allocated for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_io.command_line.printing import amount
from alexnet_io.errors import UserError

# Gradients, and what pooling and normalisation keep. Whole steps of cifar_18pct were measured to take 3.1 times the
# values alone in PyTorch and 3.8 times in JAX, on CPUs in float32.
_TRAINING = 2
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class StepMemory:
    """What a step holds of each image, and where.

    Attributes:
        layers: values of one image (into, out of) each layer with weights, in the order in which they run.
        value_bytes: bytes of one of these values.
        share: part of the batch whose pixels lie in this machine's main memory.
        devices: how many devices divide the values of a batch between them.
        device_bytes: memory of each of these; None where they compute in main memory.
        training: whether gradients follow, for which the inputs of all layers are kept.
        parts: of a batch that are worked on one after the other.
    """

    layers: Sequence[tuple[int, int]]
    value_bytes: int = 4
    share: float = 1.0
    devices: int = 1
    device_bytes: int | None = None
    training: bool = True
    parts: int = 1

    def bytes_of_values(self) -> int:
        """What one image's values take at some moment of a step, at the least.

        That is the inputs of all layers so far, which their kernels' gradients need, and one layer's output; in
        training `_TRAINING` times that. What is refused by this can't run; not all that it lets through can.
        """
        kept = most = 0
        for into, out_of in self.layers:
            kept = kept + into if self.training else into
            most = max(most, kept + out_of)
        return most * self.value_bytes * (_TRAINING if self.training else 1)


def refuse_what_cannot_fit(batch_size: int, stored_size: int, step: StepMemory) -> None:
    """Check a batch against the memory there is.

    Args:
        batch_size: images a step, over all devices and processes.
        stored_size: side of the stored images in pixels, a byte for each of three channels.
        step: what the network makes of them.

    Raises:
        UserError: it can't fit; the message says how much it needs and how many images could.
    """
    pixels, values = 3 * stored_size**2, step.bytes_of_values() / step.parts
    if step.device_bytes is None:
        _check(batch_size, (pixels + values) * step.share, available_memory(), "of main memory are available")
        return
    _check(batch_size, pixels * step.share, available_memory(), "of main memory are available")
    _check(batch_size, values / step.devices, step.device_bytes, "is what a device has")


def available_memory() -> int:
    """Bytes of main memory that this process could get: free or reclaimable, with free swap, within its cgroup."""
    known = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            known[name] = int(rest.split()[0]) * 1024
    found = [known["MemAvailable"] + known.get("SwapFree", 0)] if "MemAvailable" in known else []
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # missing, or "max"
            found.append(int(Path(path).read_text("ascii")))
    return min(found) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check(batch_size: int, per_image: float, memory: int, which: str) -> None:
    if batch_size * per_image <= memory:
        return
    raise UserError(
        f"--batch-size {batch_size} can't fit into memory: a step takes at least {amount(per_image)} for each image, "
        f"{amount(batch_size * per_image)} in all, and {amount(memory)} {which}. No more than "
        f"{int(memory / per_image):,} images could; choose a --batch-size well below that"
    )
