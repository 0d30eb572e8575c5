"""A GPU program as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jax_alexnet.compiled.gpu_reading import GpuProgram, Launch
from jax_alexnet.variants import VARIANTS

PASSES = ("forward", "backward", "update")


def table(program: GpuProgram) -> str:
    """By layer: bytes, arithmetic and modelled time of both passes and of the update."""
    names = [row.name for row in VARIANTS[program.settings["model"]].layers]
    lines = [f"{'':10}" + "".join(f"{name:>24}" for name in ("forward", "backward", "update"))]
    lines.append(f"{'layer':10}" + f"{'MB':>8}{'GFLOP':>8}{'us':>8}" * 3)
    for name in [*names, ""]:
        cells = ""
        for direction in PASSES:
            chosen = [x for x in program.launches if x.layer == name and (x.direction or "forward") == direction]
            cells += _cells(chosen)
        lines.append(f"{name or 'other':10}{cells}")
    lines.append(
        f"{'total':10}"
        + "".join(_cells([x for x in program.launches if (x.direction or "forward") == d]) for d in PASSES)
    )
    return "\n".join(lines)


def _cells(launches: Sequence[Launch]) -> str:
    if not launches:
        return f"{'-':>8}" * 3
    moved, work, seconds = (
        sum(values) for values in zip(*((x.nbytes, x.operations, x.seconds) for x in launches), strict=True)
    )
    return f"{moved / 1e6:>8.1f}{work / 1e9:>8.1f}{seconds * 1e6:>8.1f}"


def summary(program: GpuProgram) -> str:
    """Totals, messages, memory and what the program should be free of, line by line."""
    images = program.settings["batch_size"]
    lines = [
        f"{program.nbytes / 1e9:.2f} GB moved a step and GPU, {program.nbytes / images / 1e6:.1f} MB an image; "
        f"{sum(x.operations for x in program.launches) / 1e12:.2f} TFLOP; {len(program.launches)} launches",
        f"modelled {program.seconds * 1e3:.2f} ms a step without communication, "
        f"{images / program.seconds:,.0f} images/s a GPU: a bound from bytes and arithmetic, nothing was run",
        f"memory: {program.argument_bytes / 1e9:.2f} GB of weights, optimizer state and images, "
        f"{program.temporary_bytes / 1e9:.2f} GB temporary",
        f"{len(program.convolutions)} convolutions, {len(program.scatters)} scatters, "
        f"{len(program.copies)} copies of activations",
    ]
    for message in program.collectives:
        lines.append(
            f"{message.kind}: {message.nbytes:,} bytes in {message.arrays} arrays of {message.dtype}, "
            f"{message.group} GPUs together"
        )
    return "\n".join(lines)


def report(program: GpuProgram) -> str:
    """What was compiled, by layer, and in all."""
    s = program.settings
    where = f"{s['batch_size']} images on each of {s['devices']} {s['gpu']}"
    return f"{s['model']}, {s['precision']}, {where}\n{table(program)}\n{summary(program)}"


def as_json(program: GpuProgram) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    totals = {"nbytes": program.nbytes, "seconds": program.seconds, "sent": program.sent}
    return {"schema": "gpu-program/1", **totals, **asdict(program), "report": report(program)}
